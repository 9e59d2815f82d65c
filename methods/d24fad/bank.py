"""The frozen teacher's features of all training images: computed once, as neither the teacher nor the images change."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from medfsad_bench.method import Backbone, ImageSource, RunContext

_CHUNK = 64


class FeatureBank:
    """Teacher features by image number, counted through all sources in the order of their names.

    Attributes:
        source: Number of the source that each image is of.
        group: Opaque number of each image's group, unique across sources.
    """

    def __init__(
        self, sources: Mapping[str, ImageSource], backbone: Backbone, context: RunContext, *, budget_bytes: int
    ) -> None:
        self._sources = [sources[name] for name in sorted(sources)]
        self._backbone, self._context = backbone, context
        sizes = [len(source) for source in self._sources]
        self._starts = np.cumsum([0, *sizes])
        self.source: Int64[np.ndarray, " n"] = np.repeat(np.arange(len(sizes)), sizes)
        offset, groups = 0, []
        for source in self._sources:
            numbers = source.groups.cpu().numpy()
            groups.append(numbers + offset)
            offset += int(numbers.max(initial=-1)) + 1
        self.group: Int64[np.ndarray, " n"] = np.concatenate(groups).astype(np.int64)
        self._stages: list[Tensor] | None = None
        one = sum(stage[0].nbytes for stage in self._compute(np.array([0])))
        if one * len(self) <= budget_bytes:
            self._stages = self._all()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, numbers: Int64[np.ndarray, " b"]) -> Sequence[Float[Tensor, "b _c _h _w"]]:
        """Stages 1 to 4 of the images."""
        if self._stages is None:
            return self._compute(numbers)
        index = torch.from_numpy(numbers).to(self._context.device)
        return [stage[index] for stage in self._stages]

    def _all(self) -> list[Tensor]:
        stages: list[Tensor] | None = None
        for start in range(0, len(self), _CHUNK):
            numbers = np.arange(start, min(start + _CHUNK, len(self)))
            chunk = self._compute(numbers)
            if stages is None:
                stages = [part.new_empty((len(self), *part.shape[1:])) for part in chunk]
            for stage, part in zip(stages, chunk, strict=True):
                stage[start : start + len(part)] = part
            self._context.progress(start + len(numbers), len(self))
        return stages or []

    def _compute(self, numbers: Int64[np.ndarray, " b"]) -> Sequence[Tensor]:
        images = []
        for number in numbers:
            which = int(self.source[number])
            place = torch.tensor([int(number - self._starts[which])], device=self._context.device)
            images.append(self._sources[which][place])
        return self._context.features(self._backbone, torch.cat(images).float() / 255)
