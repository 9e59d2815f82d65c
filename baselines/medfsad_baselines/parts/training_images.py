"""Training images under one number each, of all sources or of the support, and a batch of them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from medfsad_bench.errors import MethodError
from medfsad_bench.learning import Numbered, Numbers
from medfsad_bench.method import Backbone, Images, RunContext


@runtime_checkable
class TrainingImages(Numbered, Protocol):
    """Training images by number, and the frozen network's features of them: `SourceImages` or `SupportImages`."""

    def images(self, numbers: Numbers) -> Images:
        """Images in [0, 1]."""

    def stages(self, numbers: Numbers) -> tuple[Tensor, ...]:
        """Feature maps, one tensor per stage, without gradient."""


class SupportImages:
    """The support, in an order that depends on its pixels alone."""

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
        """Feature maps, one tensor per stage."""
        return tuple(stage[torch.from_numpy(numbers)] for stage in self._stages)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step is given.

    Attributes:
        training_images: All of them.
        numbers: Of those in the batch.
        rng: For all that is random in the step.
    """

    training_images: TrainingImages
    numbers: Numbers
    rng: np.random.Generator

    @property
    def images(self) -> Images:
        """Images in [0, 1]."""
        return self.training_images.images(self.numbers)

    @property
    def stages(self) -> tuple[Tensor, ...]:
        """Feature maps, one tensor per stage."""
        return self.training_images.stages(self.numbers)

    @property
    def partners(self) -> tuple[Tensor, ...]:
        """Feature maps of other images, drawn anew: each of its image's set, and of another group."""
        return self.training_images.stages(partners(self.training_images, self.numbers, self.rng))


def partners(images: Numbered, numbers: Numbers, rng: np.random.Generator) -> Numbers:
    """For each image another one of its set, and of another group.

    Raises:
        MethodError: If its set has no other group.
    """
    drawn = []
    for number in numbers:
        others = np.flatnonzero((images.source == images.source[number]) & (images.group != images.group[number]))
        if not len(others):
            raise MethodError(
                "A source consists of one group of images, so none of its images has a partner to be registered with. "
                "Leave that set out of --data."
            )
        drawn.append(rng.choice(others))
    return np.array(drawn)


def in_own_order(images: Images) -> Images:
    """Images in an order that depends on their pixels alone, so that the support's order doesn't matter."""
    return images[sorted(range(len(images)), key=lambda index: images[index].cpu().numpy().tobytes())]
