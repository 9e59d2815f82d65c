"""Pixel truth of a target, and what a draw's maps are worth against it: maps are enlarged to each mask's resolution."""

import numpy as np
from jaxtyping import Bool, Float32, Int64

from medfsad_bench.manifest import PIXEL_TRUTH
from medfsad_bench.pixel_record import PixelDraw, measure_pixels
from medfsad_bench.run.maps import enlarged
from medfsad_bench.store import Dataset


class PixelTruth:
    """The masks of a target's test images.

    Attributes:
        absent: Why there are no pixel figures; empty if there are.
    """

    def __init__(self, dataset: Dataset, rows: Int64[np.ndarray, " n"]) -> None:
        kind = str(dataset.attributes["mask_kind"])
        self.absent = "" if kind in PIXEL_TRUTH else f"{dataset.name} has no pixel-exact truth (mask_kind: {kind})"
        self._masks: list[Bool[np.ndarray, "h w"]] = [] if self.absent else [dataset.mask(int(row)) for row in rows]
        if self._masks and not any(mask.any() for mask in self._masks):
            self.absent = f"no test image of {dataset.name} has a mask"

    def measure(self, maps: Float32[np.ndarray, "n s s"]) -> PixelDraw:
        """Figures of one draw's smoothed maps."""
        full = [enlarged(one, *mask.shape) for one, mask in zip(maps, self._masks, strict=True)]
        return measure_pixels(full, self._masks)
