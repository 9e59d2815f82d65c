"""Sensitivity per lesion while false positives stay within an allowance: FROC, and at a share of normal images.

Both are one statistic of weighted images, so a bootstrap costs a sort and a cumulative sum:

    FROC             a false positive is a false detection, the allowance a number of them per image
    share of images  a false positive is an image without a lesion, by its map's maximum; the allowance a share of them
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Real

from medfsad_bench.errors import MetricError

_REPLICATES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class LesionsAndFalsePositives:
    """Lesions and false positives, each with its image and its score.

    Attributes:
        lesion_score: Score at which a lesion is found; minus infinity if never.
        lesion_image: Index of its image.
        false_score: Score at which a false positive is raised.
        false_image: Index of its image.
        counted: Whether an image is one of those per which false positives are allowed: 0 or 1.
    """

    lesion_score: Float[np.ndarray, " lesions"]
    lesion_image: Int64[np.ndarray, " lesions"]
    false_score: Float[np.ndarray, " false"]
    false_image: Int64[np.ndarray, " false"]
    counted: Real[np.ndarray, " n"]


def sensitivity_at_fp(
    scored: LesionsAndFalsePositives, weights: Real[np.ndarray, "n replicates"], *, allowed: Sequence[float]
) -> Float[np.ndarray, " replicates"]:
    """Share of lesions that score above the first false positive that is one too many, under weights of the images.

    Args:
        scored: Lesions and false positives.
        weights: How often an image counts.
        allowed: False positives per counted image; the one that exceeds them isn't raised, nor what scores as low.
            The mean over several allowances is returned.

    Raises:
        MetricError: If there is no lesion.
    """
    if not len(scored.lesion_score):
        raise MetricError("There is no lesion to be found; leave the metric out of the row.")
    starts = range(0, weights.shape[1], _REPLICATES_AT_ONCE)
    sensitivity = np.concatenate(
        [_sensitivity(scored, weights[:, start : start + _REPLICATES_AT_ONCE], allowed) for start in starts]
    )
    undefined = np.isnan(sensitivity)
    if undefined.any():  # a replicate without a lesion tells nothing: it stays at what was measured
        sensitivity = np.where(undefined, _sensitivity(scored, np.ones((len(weights), 1)), allowed), sensitivity)
    return sensitivity


def _sensitivity(
    scored: LesionsAndFalsePositives, weights: Real[np.ndarray, "n replicates"], allowed: Sequence[float]
) -> Float[np.ndarray, " replicates"]:
    counted = scored.counted @ weights.astype(np.float64)
    falling = np.argsort(-scored.false_score, kind="stable")
    raised = np.cumsum(weights[scored.false_image[falling]], axis=0, dtype=np.float64)
    thresholds = np.append(scored.false_score[falling], -np.inf)
    order = np.argsort(-scored.lesion_score, kind="stable")
    above = np.searchsorted(-scored.lesion_score[order], -thresholds, side="left")  # lesions above each threshold
    lesions = np.cumsum(weights[scored.lesion_image[order]], axis=0, dtype=np.float64)
    lesions = np.concatenate([np.zeros_like(lesions[:1]), lesions])
    total, columns = lesions[-1], np.arange(weights.shape[1])
    sums = np.zeros(weights.shape[1])
    for rate in allowed:
        budget = rate * counted + 1e-6  # 0.05 × 20 is 1, whatever floating point makes of it
        surplus = np.array([np.searchsorted(raised[:, c], budget[c], side="right") for c in columns], dtype=np.int64)
        sums += lesions[above[surplus], columns]
    return np.divide(sums / len(allowed), total, out=np.full_like(total, np.nan), where=total > 0)
