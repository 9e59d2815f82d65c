"""AUROC's variance in closed form, over groups of images: a cross-check of the bootstrap, and fast.

An image's placement is the share of the other class that it stands on the right side of, ties counted half; AUROC is
the mean placement of either class. Placements are summed over a group, so that a patient's images are one observation.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); groups: Obuchowski, Biometrics 53 (1997); what groups
of unequal size hide is put back, see `group_sizes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.curve import checked
from medfsad_bench.metrics.group_sizes import GroupSizes, freedom_of
from medfsad_bench.metrics.inputs import LabelArray, as_labels, as_scores
from medfsad_bench.metrics.interval import size_limit

_NO_DEVIATIONS = pd.Series(dtype=np.float64)  # one for all: a board has thousands of measurements


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value with its standard error.

    Attributes:
        value: What was measured.
        error: Its standard error, 0 or above.
        freedom: Degrees of freedom of the standard error.
        size_limit: Largest effective sample size that the groups allow, see `interval.size_limit`.
        deviations: What each group (by key) or each replicate (by number) adds to or takes from the value. Their sum of
            squares is the groups' share of the variance, the sum of products with another target's the covariance.
    """

    value: float
    error: float
    freedom: float
    size_limit: float = np.inf
    deviations: pd.Series = field(default_factory=lambda: _NO_DEVIATIONS, compare=False, repr=False)


def placements(scores: Real[np.ndarray, "draws n"], anomalous: LabelArray) -> Float64[np.ndarray, "draws n"]:
    """Share of the other class below an anomalous image, or above a normal one; ties half.

    Raises:
        MetricError: If a class is missing, a score isn't finite or the lengths differ.

    >>> placements(np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([False, False, True, True]))
    array([[1. , 0.5, 0.5, 1. ]])
    """
    scores, anomalous = as_scores(scores), as_labels(anomalous)
    placed = np.empty(scores.shape, dtype=np.float64)
    for row, values in enumerate(scores):
        checked(values, anomalous)
        for kind in (anomalous, ~anomalous):
            others = np.sort(values[~kind])
            ends = (np.searchsorted(others, values[kind], side=side) for side in ("left", "right"))
            below = sum(ends) / 2 / len(others)
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
    keys, group = np.unique(groups, return_inverse=True)
    sizes = [GroupSizes.of(np.bincount(group[kind], minlength=len(keys))) for kind in (anomalous, ~anomalous)]
    several, many = (of_class.count for of_class in sizes)
    if min(several, many) < 2:
        raise MetricError(f"{several} groups hold anomalous and {many} normal images; a variance needs two of each.")
    deviations = pd.Series(deviations_of(placed.mean(axis=0, keepdims=True), anomalous, group, sizes)[0], keys)
    of_groups, of_draws = float((deviations**2).sum()), 0.0
    freedom = freedom_of(sizes)
    if draws > 1:
        alone = float((deviations_of(placed, anomalous, group, sizes) ** 2).sum(axis=1).mean())
        of_cells = max(alone - of_groups, 0.0) / (draws - 1)
        of_draws = max(float(by_draw.var(ddof=1)) / draws - of_cells, 0.0)
    total = of_groups + of_draws
    if of_draws > 0:
        freedom = total**2 / (of_groups**2 / freedom + of_draws**2 / (draws - 1))
    limit = size_limit(min(several, many), smooth=True)
    return Measurement(value, float(np.sqrt(total)), freedom, limit, deviations)


def deviations_of(
    placed: Float64[np.ndarray, "rows n"],
    anomalous: Bool[np.ndarray, " n"],
    group: Int64[np.ndarray, " n"],
    sizes: Sequence[GroupSizes],
) -> Float64[np.ndarray, "rows groups"]:
    """What each group adds to the mean placement: the sum of its images' centred placements over its class; corrected.

    Args:
        placed: Placements, or differences of two methods' ones, any number of rows.
        anomalous: Label of an image.
        group: Number of an image's group, from 0.
        sizes: Of the anomalous and of the normal images.
    """
    count = len(sizes[0].shares)
    by_group = np.zeros((len(placed), count))
    for kind, of_class in zip((anomalous, ~anomalous), sizes, strict=True):
        centred = (placed[:, kind] - placed[:, kind].mean(axis=1, keepdims=True)) / kind.sum()
        member = np.zeros((kind.sum(), count))
        member[np.arange(kind.sum()), group[kind]] = np.sqrt(of_class.correction)
        by_group += centred @ member
    return by_group
