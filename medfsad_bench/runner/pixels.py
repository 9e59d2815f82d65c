"""Pixel truth of a target, and what a draw's maps are worth against it: maps are enlarged to each mask's resolution."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int64

from medfsad_bench.estimates.pixel import PixelDraw, measure_pixels, measure_streamed
from medfsad_bench.manifest import PIXEL_TRUTH
from medfsad_bench.metrics.lesion import measure_lesions
from medfsad_bench.runner.maps import enlarged
from medfsad_bench.store import Dataset

STREAMED_FROM_PX = 2**27  # exact values take about 10 bytes per pixel: 1.3 GB there
Item = TypeVar("Item")


class PixelTruth:
    """The masks of a target's queries: kept, or read one by one where they are too many.

    Attributes:
        absent: Why there are no pixel estimates; empty if there are.
        streamed: Whether pixels are counted in bounded memory.
        lesion_shares: Part of an image's area that its lesions (or boxes) cover; float64 (n,), empty if `absent`.
    """

    def __init__(self, dataset: Dataset, rows: Int64[np.ndarray, " n"]) -> None:
        kind = str(dataset.attributes["mask_kind"])
        self._boxes = kind == "box"
        self.absent = ""
        if not self._boxes and kind not in PIXEL_TRUTH:
            self.absent = f"{dataset.name} has no localisation truth (mask_kind: {kind})"
        elif not dataset.has_mask()[rows].any():
            self.absent = f"no test image of {dataset.name} has a mask"
        sizes = dataset.table[["height", "width"]].to_numpy(np.int64)[rows]
        self.streamed = int(sizes.prod(axis=1).sum()) >= STREAMED_FROM_PX
        masks = _Repeated(lambda: (dataset.mask(int(row)) for row in rows))
        self._masks: Iterable[Bool[np.ndarray, "_ _"]] = masks if self.absent or self.streamed else list(masks)
        self.lesion_shares = np.array([mask.mean() for mask in self._masks] if not self.absent else [], np.float64)

    def measure(self, maps: Float32[np.ndarray, "n s s"]) -> PixelDraw:
        """Values of one draw's smoothed maps."""
        images = _Repeated(
            lambda: ((enlarged(each, *mask.shape), mask) for each, mask in zip(maps, self._masks, strict=True))
        )
        if self._boxes:
            return PixelDraw(measure_lesions(images))
        if self.streamed:
            return measure_streamed(images)
        full, masks = zip(*images, strict=True)
        return measure_pixels(list(full), list(masks))


@dataclass(frozen=True, slots=True)
class _Repeated(Generic[Item]):
    """Items that are computed one after the other, as often as they are asked for."""

    items: Callable[[], Iterator[Item]]

    def __iter__(self) -> Iterator[Item]:
        return self.items()
