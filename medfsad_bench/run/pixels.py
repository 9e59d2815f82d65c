"""Pixel figures of a run: maps enlarged to the truth's own resolution, one draw at a time."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64

from medfsad_bench.manifest import PIXEL_TRUTH
from medfsad_bench.metrics.pixel import aupro_score, pixel_auroc_score
from medfsad_bench.results import Figure, mean_figure
from medfsad_bench.run.maps import enlarged
from medfsad_bench.store import Dataset

AUPRO_LIMIT = 0.3
PIXEL_METRICS = ("pixel_auroc", f"pixel_aupro@{AUPRO_LIMIT}")


class PixelTruth:
    """The masks of a target's test images."""

    def __init__(self, dataset: Dataset, rows: Int64[np.ndarray, " n"]) -> None:
        kind = str(dataset.attributes["mask_kind"])
        self.absent = "" if kind in PIXEL_TRUTH else f"{dataset.name} has no pixel-exact truth (mask_kind: {kind})"
        self._masks: list[Bool[np.ndarray, "h w"]] = [] if self.absent else [dataset.mask(int(row)) for row in rows]
        if self._masks and not any(mask.any() for mask in self._masks):
            self.absent = f"no test image of {dataset.name} has a mask"

    def values(self, maps: Float32[np.ndarray, "n s s"]) -> dict[str, float]:
        """Pixel AUROC and AUPRO of one draw's smoothed maps."""
        full = [enlarged(one, *mask.shape) for one, mask in zip(maps, self._masks, strict=True)]
        return {
            "pixel_auroc": pixel_auroc_score(full, self._masks),
            f"pixel_aupro@{AUPRO_LIMIT}": aupro_score(full, self._masks, fpr_limit=AUPRO_LIMIT),
        }


def pixel_figures(values: Sequence[dict[str, float]]) -> dict[str, Figure]:
    """Means over draws."""
    return {name: mean_figure(np.array([draw[name] for draw in values])) for name in PIXEL_METRICS} if values else {}
