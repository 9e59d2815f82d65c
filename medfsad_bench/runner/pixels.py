"""Pixel truth of a target, and what a draw's maps are worth against it: maps are enlarged to each mask's resolution."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from medfsad_bench.estimates.pixel import PixelDraw, measure_pixels, measure_streamed
from medfsad_bench.manifest import PIXEL_TRUTH
from medfsad_bench.metrics.lesion import measure_lesions
from medfsad_bench.runner.maps import enlarged
from medfsad_bench.store import Dataset

STREAMED_FROM_PX = 2**27  # exact figures take about 10 bytes a pixel: 1.3 GB there


class PixelTruth:
    """The masks of a target's test images: kept, or read one by one where they are too many.

    Attributes:
        absent: Why there are no pixel figures; empty if there are.
        streamed: Whether pixels are counted in bounded memory.
    """

    def __init__(self, dataset: Dataset, rows: Int64[np.ndarray, " n"]) -> None:
        kind = str(dataset.attributes["mask_kind"])
        self._dataset, self._rows = dataset, rows
        self._boxes = kind == "box"
        self.absent = (
            ""
            if self._boxes or kind in PIXEL_TRUTH
            else f"{dataset.name} has no localisation truth (mask_kind: {kind})"
        )
        if not self.absent and not dataset.has_mask()[rows].any():
            self.absent = f"no test image of {dataset.name} has a mask"
        pixels = int(
            (dataset.table["height"].to_numpy(np.int64) * dataset.table["width"].to_numpy(np.int64))[rows].sum()
        )
        self.streamed = pixels >= STREAMED_FROM_PX
        self._masks = [] if self.absent or self.streamed else [dataset.mask(int(row)) for row in rows]

    def lesion_shares(self) -> Float64[np.ndarray, " n"]:
        """Part of a test image's area that its lesions (or boxes) cover."""
        return np.array([float(mask.mean()) for mask in self._each()])

    def measure(self, maps: Float32[np.ndarray, "n s s"]) -> PixelDraw:
        """Figures of one draw's smoothed maps."""
        images = _Images(self, maps)
        if self._boxes:
            return PixelDraw(measure_lesions(images))
        if self.streamed:
            return measure_streamed(images)
        full, masks = zip(*images, strict=True)
        return measure_pixels(list(full), list(masks))

    def _each(self) -> Iterator[Bool[np.ndarray, "h w"]]:
        if self._masks:
            yield from self._masks
        else:
            yield from (self._dataset.mask(int(row)) for row in self._rows)


class _Images:
    """Enlarged maps and masks, one after the other, as often as they are asked for."""

    def __init__(self, truth: PixelTruth, maps: Float32[np.ndarray, "n s s"]) -> None:
        self._truth, self._maps = truth, maps

    def __iter__(self) -> Iterator[tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]]:
        for anomaly_map, mask in zip(self._maps, self._truth._each(), strict=True):
            yield enlarged(anomaly_map, *mask.shape), mask
