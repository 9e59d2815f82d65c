"""Pixel level: anomaly maps against masks, at the mask's own resolution, pixels of all images together.

Maps and masks are one array (n, h, w) each or sequences of 2-D arrays of any sizes. Every function is exact: all
distinct scores are thresholds, equal scores are one threshold. To have several metrics of the same maps, rank them once
(`pixel_ranks` of `checked_maps`) and call the functions at the end of this module, which `pixel_metrics` does.
"""

import numpy as np
from jaxtyping import Float, Int64

from medfsad_bench.metrics.ranks import Maps, Masks, PixelRanks, checked_maps, pixel_ranks


def pixel_auroc_score(maps: Maps, masks: Masks) -> float:
    """Area under the ROC curve over all pixels, in [0, 1]; dominated by large regions and by easy background.

    Raises:
        MetricError: If a class is missing, a pixel isn't finite or shapes differ.

    >>> pixel_auroc_score(np.array([[[0.1, 0.9, 0.9]]]), np.array([[[False, True, False]]]))
    0.75
    """
    return auroc(pixel_ranks(*checked_maps(maps, masks)))


def pixel_average_precision_score(maps: Maps, masks: Masks) -> float:
    """Average precision Σ (Rₜ - Rₜ₋₁) Pₜ over all pixels; chance is the share of anomalous pixels.

    Raises:
        MetricError: If a class is missing, a pixel isn't finite or shapes differ.

    >>> pixel_average_precision_score(np.array([[[0.1, 0.9, 0.9]]]), np.array([[[False, True, False]]]))
    0.5
    """
    return average_precision(pixel_ranks(*checked_maps(maps, masks)))


def aupro_score(maps: Maps, masks: Masks, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to `fpr_limit`, divided by it; in [0, 1].

    Every connected region (8-neighbourhood) counts the same, whatever its size; the false-positive rate is over all
    normal pixels of all images; the curve is linear between the points of neighbouring thresholds, and is cut at the
    limit by the same line. A pixel reached at false-positive rate f adds max(limit - f, 0) / limit to its region's
    mean, so the area needs no curve.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 4.2.

    Raises:
        MetricError: If a class is missing, a pixel isn't finite or shapes differ.

    >>> aupro_score(np.array([[[0.1, 0.9]]]), np.array([[[False, True]]]))
    1.0
    """
    return aupro(pixel_ranks(*checked_maps(maps, masks)), fpr_limit=fpr_limit)


def dice_max_score(maps: Maps, masks: Masks) -> float:
    """Largest Dice = 2 TP / (2 TP + FP + FN) over one threshold for all pixels: an **oracle**; in (0, 1].

    Raises:
        MetricError: If a class is missing, a pixel isn't finite or shapes differ.

    >>> dice_max_score(np.array([[[0.1, 0.9, 0.9]]]), np.array([[[False, True, False]]]))
    0.6666666666666666
    """
    return dice_max(pixel_ranks(*checked_maps(maps, masks)))


def pixel_metrics(ranks: PixelRanks) -> dict[str, float]:
    """All metrics of ranked pixels, under the names that rows use; the name says the variant."""
    return {
        "pixel_auroc": auroc(ranks),
        "pixel_average_precision": average_precision(ranks),
        "aupro_fpr30_conn8": aupro(ranks, fpr_limit=0.3),
        "aupro_fpr05_conn8": aupro(ranks, fpr_limit=0.05),
        "dice_max_oracle": dice_max(ranks),
    }


def auroc(ranks: PixelRanks) -> float:
    """AUROC of ranked pixels: 1 - mean share of normals above, ties counted half."""
    above = int(ranks.normals_above.sum()) + int(ranks.normals_reached.sum())
    return 1 - above / (2 * len(ranks.scores) * ranks.normals)


def average_precision(ranks: PixelRanks) -> float:
    """Average precision of ranked pixels: the mean precision at their thresholds."""
    reached = _anomalous_reached(ranks)
    return float(np.mean(reached / (reached + ranks.normals_reached)))


def dice_max(ranks: PixelRanks) -> float:
    """Largest Dice of ranked pixels; it can only lie at the score of an anomalous one."""
    reached = _anomalous_reached(ranks)
    return float(np.max(2 * reached / (len(reached) + reached + ranks.normals_reached)))


def aupro(ranks: PixelRanks, *, fpr_limit: float = 0.3) -> float:
    """AUPRO of ranked pixels."""
    gain = overlap_gain(ranks.normals_above / ranks.normals, ranks.normals_reached / ranks.normals, fpr_limit=fpr_limit)
    sizes = np.bincount(ranks.regions, minlength=len(ranks.region_images))
    return float(np.mean(np.bincount(ranks.regions, weights=gain, minlength=len(sizes)) / sizes))


def overlap_gain(
    low: Float[np.ndarray, "p *replicates"], high: Float[np.ndarray, "p *replicates"], *, fpr_limit: float
) -> Float[np.ndarray, "p *replicates"]:
    """Share of [0, `fpr_limit`] under the curve of one pixel that rises linearly from 0 at `low` to 1 at `high`."""
    width = high - low
    before = np.minimum(high, fpr_limit) - low
    ramp = np.divide(before**2, 2 * width, out=np.zeros_like(low), where=(width > 0) & (before > 0))
    return np.asarray((ramp + np.maximum(fpr_limit - high, 0)) / fpr_limit)


def _anomalous_reached(ranks: PixelRanks) -> Int64[np.ndarray, " p"]:
    rising = -ranks.scores
    return np.searchsorted(rising, rising, side="right")
