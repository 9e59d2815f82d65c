"""What metrics take: scores of any real type and labels that are 0 or 1, brought to one form before anything counts."""

import numpy as np
from jaxtyping import Bool, Float, Integer, Real, Shaped

from medfsad_bench.errors import MetricError

ScoreArray = Real[np.ndarray, " n"] | Bool[np.ndarray, " n"]
LabelArray = Bool[np.ndarray, " n"] | Integer[np.ndarray, " n"]


def as_scores(scores: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Scores as float32 or float64: integers of less than 54 bits and float16 keep their values and their order.

    Unsigned integers can't be negated and float16 overflows in a sum, so no metric computes with either.

    Raises:
        MetricError: If they aren't real numbers.

    >>> as_scores(np.array([3, 255], np.uint8))
    array([  3., 255.])
    """
    if scores.dtype in (np.float32, np.float64):
        return scores
    if scores.dtype.kind not in "biuf":
        raise MetricError(f"Scores are of type {scores.dtype}; expected real numbers, one per image or pixel.")
    return scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)


def as_labels(labels: Shaped[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Labels as booleans, True for anomalous. An integer label would be taken for an index.

    Raises:
        MetricError: If one is neither 0 nor 1.

    >>> as_labels(np.array([0, 1, 1], np.uint8))
    array([False,  True,  True])
    """
    if labels.dtype == bool:
        return labels
    if labels.dtype.kind not in "iu" or not np.isin(labels, (0, 1)).all():
        values = ", ".join(map(str, np.unique(labels)[:5].tolist()))
        raise MetricError(f"Labels of type {labels.dtype} hold {values}; expected 0 for normal and 1 for anomalous.")
    return labels.astype(bool)
