"""Sensitivity per lesion while false positives stay within an allowance: FROC, and at a share of normal images.

Both are one statistic of weighted images, so a bootstrap costs a sort and a cumulative sum:

    FROC             a false positive is a false detection, the allowance a number of them per image
    share of images  a false positive is an image without a lesion, by its map's maximum; the allowance a share of them
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64, Real

from medfsad_bench.errors import MetricError

_REPLICATES_AT_ONCE = 256  # bounds memory: lesions or false positives × 256 × 8 bytes × a handful of arrays


def sensitivity_at_fp(
    lesion_score: Float[np.ndarray, " lesions"],
    lesion_image: Int64[np.ndarray, " lesions"],
    false_score: Float[np.ndarray, " false"],
    false_image: Int64[np.ndarray, " false"],
    weights: Real[np.ndarray, "n replicates"],
    *,
    counted: Real[np.ndarray, " n"],
    allowed: Sequence[float],
) -> Float[np.ndarray, " replicates"]:
    """Share of lesions that score above the first false positive that is one too many; NaN without a weighted lesion.

    Args:
        lesion_score: Score at which a lesion is found; minus infinity if never.
        lesion_image: Index of its image.
        false_score: Score at which a false positive is raised.
        false_image: Index of its image.
        weights: How often an image counts.
        counted: Whether an image is one of those per which false positives are allowed: 0 or 1.
        allowed: False positives per counted image; the one that exceeds them isn't raised, nor what scores as low.
            The mean over several allowances is returned.

    Raises:
        MetricError: If there is no lesion.
    """
    if not len(lesion_score):
        raise MetricError("There is no lesion to be found; leave the metric out of the row.")
    falling = np.argsort(-false_score, kind="stable")
    thresholds = np.append(false_score[falling], -np.inf)
    order = np.argsort(-lesion_score, kind="stable")
    above = np.searchsorted(-lesion_score[order], -thresholds, side="left")  # lesions above each threshold
    shares = []
    for part in np.split(weights, range(_REPLICATES_AT_ONCE, weights.shape[1], _REPLICATES_AT_ONCE), axis=1):
        images = counted @ part.astype(np.float64)
        raised = np.cumsum(part[false_image[falling]], axis=0, dtype=np.float64)
        lesions = np.cumsum(part[lesion_image[order]], axis=0, dtype=np.float64)
        lesions = np.concatenate([np.zeros_like(lesions[:1]), lesions])
        total, columns = lesions[-1], np.arange(part.shape[1])
        sums = np.zeros(part.shape[1])
        for rate in allowed:
            budget = rate * images + 1e-6  # 0.05 × 20 is 1, whatever floating point makes of it
            surplus = np.array([np.searchsorted(raised[:, c], budget[c], side="right") for c in columns], np.int64)
            sums += lesions[above[surplus], columns]
        shares.append(np.divide(sums / len(allowed), total, out=np.full_like(total, np.nan), where=total > 0))
    return np.concatenate(shares)
