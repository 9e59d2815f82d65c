"""Share of lesions found while false alarms stay within an allowance: FROC and recall at a share of normal images.

Both are one statistic of weighted images, so a bootstrap costs a sort and a cumulative sum:

    FROC            an alarm is a false detection, the allowance a number of them per image
    share of images an alarm is an image without a lesion, by its map's maximum; the allowance a share of such images
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Real

from medfsad_bench.errors import MetricError

_REPLICATES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Alarms:
    """Lesions and false alarms, each with its image and its score.

    Attributes:
        lesion_score: Score at which a lesion is found; minus infinity if never.
        lesion_image: Index of its image.
        alarm_score: Score at which a false alarm is raised.
        alarm_image: Index of its image.
        counted: Whether an image is one of those per which alarms are allowed: 0 or 1.
    """

    lesion_score: Float[np.ndarray, " lesions"]
    lesion_image: Int64[np.ndarray, " lesions"]
    alarm_score: Float[np.ndarray, " alarms"]
    alarm_image: Int64[np.ndarray, " alarms"]
    counted: Real[np.ndarray, " n"]


def share_found(
    alarms: Alarms, weights: Real[np.ndarray, "n replicates"], *, allowed: Sequence[float]
) -> Float[np.ndarray, " replicates"]:
    """Share of lesions that score above the first false alarm that is one too many, under weights of the images.

    Args:
        alarms: What was found and what was raised.
        weights: How often an image counts.
        allowed: False alarms per counted image; the alarm that makes them more isn't raised, nor what scores as low.
            The mean over several allowances is returned.

    Raises:
        MetricError: If there is no lesion.
    """
    if not len(alarms.lesion_score):
        raise MetricError("There is no lesion to be found; leave the figure out of the row.")
    starts = range(0, weights.shape[1], _REPLICATES_AT_ONCE)
    shares = np.concatenate(
        [_share_found(alarms, weights[:, start : start + _REPLICATES_AT_ONCE], allowed) for start in starts]
    )
    if np.isnan(shares).any():  # a replicate without a lesion tells nothing: it stays at what was measured
        shares = np.where(np.isnan(shares), _share_found(alarms, np.ones((len(weights), 1)), allowed), shares)
    return shares


def _share_found(
    alarms: Alarms, weights: Real[np.ndarray, "n replicates"], allowed: Sequence[float]
) -> Float[np.ndarray, " replicates"]:
    counted = alarms.counted @ weights.astype(np.float64)
    falling = np.argsort(-alarms.alarm_score, kind="stable")
    raised = np.cumsum(weights[alarms.alarm_image[falling]], axis=0, dtype=np.float64)
    scores = np.append(alarms.alarm_score[falling], -np.inf)
    order = np.argsort(-alarms.lesion_score, kind="stable")
    above = np.searchsorted(-alarms.lesion_score[order], -scores, side="left")  # lesions above each alarm
    found = np.cumsum(weights[alarms.lesion_image[order]], axis=0, dtype=np.float64)
    found = np.concatenate([np.zeros_like(found[:1]), found])
    total, columns = found[-1], np.arange(weights.shape[1])
    shares = np.zeros(weights.shape[1])
    for rate in allowed:
        budget = rate * counted + 1e-6  # 0.05 × 20 is 1, whatever floating point makes of it
        surplus = np.array([np.searchsorted(raised[:, c], budget[c], side="right") for c in columns], dtype=np.int64)
        shares += found[above[surplus], columns]
    return np.divide(shares / len(allowed), total, out=np.full_like(total, np.nan), where=total > 0)
