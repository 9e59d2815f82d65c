"""Confidence intervals by a bootstrap crossed over groups of images and support draws.

    1 table     the metric of every draw under every resampling of the groups
    2 cross     per replicate the draws are resampled too; its statistic is the mean over them
    3 correct   a crossed bootstrap counts the noise of single cells threefold; the spread is brought back
    4 widen     few draws or groups: Student's factor in place of the normal one

The interval is conditional on one training; the spread over training seeds is a figure of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.curve import Curve, ranking, statistic, weigh
from medfsad_bench.metrics.resample import draw_weights, group_weights, stratum_count

_REPLICATES_AT_ONCE = 256  # bounds memory: images × 256 × 8 bytes × a handful of arrays


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the figure lies with the stated confidence.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Replicates:
    """The metric of every draw, as measured and under every resampling of the groups.

    Attributes:
        measured: Metric of a draw on the images as they are.
        resampled: The same under each replicate's weights.
        groups: Number of independent groups less the number of strata: their degrees of freedom.
    """

    measured: Float64[np.ndarray, " draws"]
    resampled: Float64[np.ndarray, "replicates draws"]
    groups: int


def bootstrap_interval(
    scores: Float[np.ndarray, "draws n"],
    anomalous: Bool[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
    *,
    metric: str = "auroc",
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the mean over support draws of an image-level metric, for new images and new draws.

    Args:
        scores: One row a support draw; the same images in the same order.
        anomalous: Label of an image.
        groups: Number of the patient, slide or cluster of near-duplicates that the image belongs to.
        metric: A name of `medfsad_bench.metrics.curve.STATISTICS`.
        replicates: Number of resamplings.
        level: Confidence.
        seed: Of the resampling alone; two methods with equal seeds see equal resamplings.

    Raises:
        MetricError: If a class is missing, a score isn't finite, lengths differ or there are fewer than two groups.
    """
    table = replicate(scores, anomalous, groups, metric=metric, replicates=replicates, seed=seed)
    interval = crossed_interval(table, level=level, seed=seed)
    return Interval(max(interval.low, 0.0), min(interval.high, 1.0))


def replicate(
    scores: Float[np.ndarray, "draws n"],
    anomalous: Bool[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
    *,
    metric: str = "auroc",
    replicates: int = 2000,
    seed: int = 0,
) -> Replicates:
    """The metric of every draw under every resampling of the groups.

    Raises:
        MetricError: See `bootstrap_interval`.
    """
    compute = statistic(metric)
    weights = group_weights(groups, anomalous, replicates=replicates, seed=seed)
    columns = [_under_weights(row, anomalous, weights, compute) for row in scores]
    if not columns:
        raise MetricError("No support draw was given; an interval needs at least one row of scores.")
    count, strata = stratum_count(groups, anomalous)
    measured = np.array([column[0] for column in columns])
    return Replicates(measured, np.stack([column[1] for column in columns], axis=1), count - strata)


def crossed_interval(table: Replicates, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentiles of the crossed replicates, stretched about the estimate to the right variance.

    A replicate that resamples m groups and D draws has the expected variance A + B + 3E, where A, B and E are the
    shares of groups, draws and single cells in the variance A + B + E of the estimate (McCullagh, Bernoulli 6, 2000;
    Owen, Annals of Applied Statistics 1, 2007). All three are read off the table, so the excess is taken out.
    """
    from scipy.stats import norm, t

    estimate = float(table.measured.mean())
    share = draw_weights(table.resampled.shape[1], replicates=len(table.resampled), seed=seed)
    crossed = (table.resampled * share).sum(axis=1)
    spread = crossed.std()
    if spread == 0:
        return Interval(estimate, estimate)
    variance, freedom = _variance(table)
    tail = (1 - level) / 2
    factor = np.sqrt(variance) / spread * t.isf(tail, freedom) / norm.isf(tail)
    low, high = np.quantile(crossed, [tail, 1 - tail]) - estimate
    return Interval(float(estimate + factor * low), float(estimate + factor * high))


def _variance(table: Replicates) -> tuple[float, float]:
    """Variance of the mean over draws, and its degrees of freedom by Satterthwaite's rule."""
    by_groups = float(table.resampled.mean(axis=1).var())
    draws = len(table.measured)
    if draws == 1:
        return by_groups, table.groups
    of_draws = float(table.measured.var(ddof=1)) / draws
    of_cells = float(table.resampled.var(axis=1, ddof=1).mean()) / draws - of_draws
    by_draws = max(of_draws - max(of_cells, 0.0), 0.0)
    total = by_groups + by_draws
    if total == 0:
        return 0.0, table.groups
    return total, total**2 / (by_groups**2 / table.groups + by_draws**2 / (draws - 1))


def _under_weights(
    scores: Float[np.ndarray, " n"],
    anomalous: Bool[np.ndarray, " n"],
    weights: Float32[np.ndarray, "n replicates"],
    compute: Callable[[Curve], Float[np.ndarray, "*replicates"]],
) -> tuple[float, Float64[np.ndarray, " replicates"]]:
    ranked = ranking(scores, anomalous)
    measured = float(compute(weigh(ranked, np.ones(len(scores)))))
    starts = range(0, weights.shape[1], _REPLICATES_AT_ONCE)
    parts = [compute(weigh(ranked, weights[:, start : start + _REPLICATES_AT_ONCE])) for start in starts]
    return measured, np.concatenate(parts)
