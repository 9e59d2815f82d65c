"""AUROC's variance in closed form, over groups of images: a cross-check of the bootstrap, and fast.

An image's placement is the share of the other class that it stands on the right side of, ties counted half; AUROC is
the mean placement of either class. Placements are summed over a group, so that a patient's images are one observation.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); groups: Obuchowski, Biometrics 53 (1997).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.curve import ranking
from medfsad_bench.metrics.inputs import LabelArray, as_labels, as_scores


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value with its standard error.

    Attributes:
        value: What was measured.
        error: Its standard error, 0 or above.
        freedom: Degrees of freedom of the standard error.
    """

    value: float
    error: float
    freedom: float


def placements(scores: Real[np.ndarray, "draws n"], anomalous: LabelArray) -> Float64[np.ndarray, "draws n"]:
    """Share of the other class below an anomalous image, or above a normal one; ties half.

    Raises:
        MetricError: If a class is missing, a score isn't finite or the lengths differ.

    >>> placements(np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([False, False, True, True]))
    array([[1. , 0.5, 0.5, 1. ]])
    """
    from scipy.stats import rankdata

    scores, anomalous = as_scores(scores), as_labels(anomalous)
    placed = np.empty(scores.shape, dtype=np.float64)
    for row, values in enumerate(scores):
        ranking(values, anomalous)  # refuses what has no AUROC
        ranks = rankdata(values)
        for kind in (anomalous, ~anomalous):
            below = (ranks[kind] - rankdata(values[kind])) / (~kind).sum()
            placed[row, kind] = below if kind is anomalous else 1 - below
    return placed


def delong(
    placed: Float64[np.ndarray, "draws n"], anomalous: LabelArray, groups: Int64[np.ndarray, " n"]
) -> Measurement:
    """Mean over draws of AUROC, or of the difference of two methods' AUROCs, with its standard error.

    The variance has the same shares as the bootstrap's (`interval.variance_of`): that of the groups for the mean over
    draws, and that of the draws beyond the noise of their images.

    Args:
        placed: `placements` of a method, or the difference of two methods' on the same draws.
        anomalous: Label of an image.
        groups: Group of an image.

    Raises:
        MetricError: If a class has fewer than two groups.
    """
    anomalous = as_labels(anomalous)
    by_draw = placed[:, anomalous].mean(axis=1)
    value, draws = float(by_draw.mean()), len(placed)
    group = np.unique(groups, return_inverse=True)[1]
    of_groups = _variance(placed.mean(axis=0), anomalous, group)
    freedom = float(min(len(np.unique(group[anomalous])), len(np.unique(group[~anomalous]))) - 1) * 2
    if draws == 1:
        return Measurement(value, float(np.sqrt(of_groups)), freedom)
    alone = float(np.mean([_variance(row, anomalous, group) for row in placed]))
    of_cells = max(alone - of_groups, 0.0) / (draws - 1)
    of_draws = max(float(by_draw.var(ddof=1)) / draws - of_cells, 0.0)
    total = of_groups + of_draws
    if total == 0:
        return Measurement(value, 0.0, freedom)
    return Measurement(
        value, float(np.sqrt(total)), float(total**2 / (of_groups**2 / freedom + of_draws**2 / (draws - 1)))
    )


def _variance(
    placed: Float64[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], group: Int64[np.ndarray, " n"]
) -> float:
    """Obuchowski's sum of squares over groups; without shared groups it is DeLong's."""
    count = int(group.max()) + 1
    sums, kinds = [], []
    for kind in (anomalous, ~anomalous):
        centred = placed[kind] - placed[kind].mean()
        sums.append(np.bincount(group[kind], weights=centred, minlength=count) / kind.sum())
        kinds.append(len(np.unique(group[kind])))
    if min(kinds) < 2:
        raise MetricError(
            f"{kinds[0]} groups hold anomalous and {kinds[1]} normal images; a variance needs two of each."
        )
    (first, second), (several, many) = sums, kinds
    both = 2 * count / (count - 1) * float(first @ second)
    return max(several / (several - 1) * float(first @ first) + many / (many - 1) * float(second @ second) + both, 0.0)
