"""Training images of all sources under one number each, and the frozen teacher's features of them.

Neither the teacher nor the images change, so the runner computes the features once and keeps them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from medfsad_bench.method import Backbone, ImageSource, RunContext


class FeatureBank:
    """Teacher features by image number, counted through all sources in the order of their names.

    Attributes:
        source: Number of the source that each image is of.
        group: Opaque number of each image's group, unique across sources.
    """

    def __init__(self, sources: Mapping[str, ImageSource], backbone: Backbone, context: RunContext) -> None:
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

    def __len__(self) -> int:
        return int(self._starts[-1])

    def stages(
        self, numbers: Int64[np.ndarray, " b"], which: Sequence[int] = (0, 1, 2, 3)
    ) -> list[Float[Tensor, "b _c _h _w"]]:
        """Stages 1 to 4 of the images (counted from 0), or those asked for."""
        found: list[Tensor] = []
        for source in np.unique(self.source[numbers]):
            at = np.flatnonzero(self.source[numbers] == source)
            local = self._on_device(numbers[at] - self._starts[source])
            parts = self._context.source_features(self._backbone, self._sources[source], local, which)
            found = found or [part.new_empty((len(numbers), *part.shape[1:])) for part in parts]
            for stage, part in zip(found, parts, strict=True):
                stage[self._on_device(at)] = part
        return found

    def _on_device(self, numbers: Int64[np.ndarray, " b"]) -> Int64[Tensor, " b"]:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._context.device)
