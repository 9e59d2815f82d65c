"""Training images under one number each: of all sources, or of the support; and a batch of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Backbone, Images, ImageSource, RunContext

Numbers = Int64[np.ndarray, " _count"]


@runtime_checkable
class Pool(Protocol):
    """Training images under one number each, and the frozen network's features of them.

    Attributes:
        source: Number of the set that each image is of.
        group: Opaque number of each image's group, unique across sets.
    """

    source: Numbers
    group: Numbers

    def __len__(self) -> int: ...

    def images(self, numbers: Numbers) -> Images:
        """Images in [0, 1]."""

    def stages(self, numbers: Numbers) -> tuple[Tensor, ...]:
        """Feature maps, one tensor a stage, without gradient."""


class SourcePool:
    """All images of all sources, counted through them in the order of their names."""

    def __init__(self, sources: Mapping[str, ImageSource], backbone: Backbone, context: RunContext) -> None:
        self._sources = [sources[name] for name in sorted(sources)]
        self._backbone, self._context = backbone, context
        sizes = [len(source) for source in self._sources]
        self._starts = np.cumsum([0, *sizes])
        self.source = np.repeat(np.arange(len(sizes)), sizes)
        groups = [source.groups.cpu().numpy() for source in self._sources]
        offsets = np.cumsum([0, *(int(one.max(initial=-1)) + 1 for one in groups)])
        self.group = np.concatenate([one + offset for one, offset in zip(groups, offsets[:-1], strict=True)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def images(self, numbers: Numbers) -> Images:
        """Images in [0, 1]."""
        (found,) = self._gathered(numbers, lambda source, indices: (source[indices].float() / 255,))
        return found

    def stages(self, numbers: Numbers) -> tuple[Tensor, ...]:
        """Feature maps, one tensor a stage, from the run's cache."""
        return self._gathered(numbers, lambda s, i: self._context.source_features(self._backbone, s, i))

    def _gathered(
        self, numbers: Numbers, get: Callable[[ImageSource, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        order, parts = [], []
        for source in np.unique(self.source[numbers]):
            at = np.flatnonzero(self.source[numbers] == source)
            indices = torch.from_numpy(numbers[at] - self._starts[source]).to(self._context.device)
            order.append(at)
            parts.append(get(self._sources[source], indices))
        back = torch.from_numpy(np.argsort(np.concatenate(order))).to(self._context.device)
        return tuple(torch.cat(part)[back] for part in zip(*parts, strict=True))


class SupportPool:
    """The support, in an order that hangs on its pixels alone."""

    def __init__(self, support: Images, backbone: Backbone, context: RunContext) -> None:
        self._images = in_own_order(support)
        self._stages = context.features(backbone, self._images)
        self.source, self.group = np.zeros(len(support), np.int64), np.arange(len(support))

    def __len__(self) -> int:
        return len(self._images)

    def images(self, numbers: Numbers) -> Images:
        """Images in [0, 1]."""
        return self._images[torch.from_numpy(numbers)]

    def stages(self, numbers: Numbers) -> tuple[Tensor, ...]:
        """Feature maps, one tensor a stage."""
        return tuple(stage[torch.from_numpy(numbers)] for stage in self._stages)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step is given.

    Attributes:
        pool: All training images.
        numbers: Of those in the batch.
        rng: For all that is random in the step.
    """

    pool: Pool
    numbers: Numbers
    rng: np.random.Generator

    @property
    def images(self) -> Images:
        """Images in [0, 1]."""
        return self.pool.images(self.numbers)

    @property
    def stages(self) -> tuple[Tensor, ...]:
        """Feature maps, one tensor a stage."""
        return self.pool.stages(self.numbers)

    @property
    def partners(self) -> tuple[Tensor, ...]:
        """Feature maps of other images, drawn anew: each of its image's set, and of another group."""
        return self.pool.stages(partners(self.pool, self.numbers, self.rng))


def partners(pool: Pool, numbers: Numbers, rng: np.random.Generator) -> Numbers:
    """For each image another one of its set, and of another group.

    Raises:
        MethodError: If its set has no other group.
    """
    found = []
    for number in numbers:
        others = np.flatnonzero((pool.source == pool.source[number]) & (pool.group != pool.group[number]))
        if not len(others):
            raise MethodError(
                "A source consists of one group of images, so none of its images has a partner to be registered with. "
                "Leave that set out of --data."
            )
        found.append(rng.choice(others))
    return np.array(found)


def in_own_order(images: Images) -> Images:
    """Images in an order that hangs on their pixels alone, so that the support's order doesn't matter."""
    order = sorted(range(len(images)), key=lambda place: images[place].cpu().numpy().tobytes())
    return images[order]
