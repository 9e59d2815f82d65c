"""Confidence intervals by a bootstrap crossed over groups of images and support draws.

    1 replicate   the metric of every draw under every weighting of the groups, draws resampled too; its distance from
                  the metric as measured is stretched by what few or unequal groups hide (`resample.Precision`)
    2 variance    a crossed bootstrap counts the noise of single cells threefold; the excess is taken out
    3 interval    score interval (Wilson) at the effective sample size that this variance implies, with Student's factor
                  at the degrees of freedom that the groups' sizes leave

The interval is conditional on one training; the spread over training seeds is stated apart. Percentiles alone fall
short near 1 and for few groups; the measured coverage stands in RESULTS.md.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.curve import Ranking, rankings
from medfsad_bench.metrics.inputs import LabelArray, as_labels
from medfsad_bench.metrics.metric import IMAGE_AUROC, IMAGE_METRICS, Metric
from medfsad_bench.metrics.resample import Precision, Resampling, draw_weights, resampling

_REPLICATES_AT_ONCE = 256  # bounds memory: images or bins × 256 × 8 bytes × a handful of arrays


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the metric lies with the stated confidence: from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Replicates:
    """The metric of every draw, as measured and under every weighting of the groups.

    Attributes:
        measured: Metric of a draw on the images as they are.
        resampled: The same under each replicate's weights, stretched; may leave the metric's bounds.
        scarcer: Groups of the class that has fewer of them.
        freedom: Degrees of freedom that the groups leave.
        seed: Of the weights.
    """

    measured: Float64[np.ndarray, " draws"]
    resampled: Float64[np.ndarray, "replicates draws"]
    scarcer: int
    freedom: float
    seed: int

    @classmethod
    def of(
        cls,
        measured: Float64[np.ndarray, " draws"],
        replicated: Float64[np.ndarray, "replicates draws"],
        precision: Precision,
        *,
        seed: int,
    ) -> "Replicates":
        """From the metric under each replicate's weights, not stretched yet; where it is NaN it tells nothing."""
        distance = np.where(np.isnan(replicated), 0.0, replicated - measured)
        stretched = measured + precision.stretch * distance
        return cls(measured, stretched, precision.scarcer, precision.freedom, seed)

    @property
    def mean(self) -> float:
        """Mean over the draws."""
        return float(self.measured.mean())


def replicate(
    scores: Real[np.ndarray, "draws n"],
    anomalous: LabelArray,
    groups: Int64[np.ndarray, " n"],
    *,
    metric: Metric = IMAGE_AUROC,
    replicates: int = 2000,
    seed: int = 0,
) -> Replicates:
    """An image-level metric of every draw under every weighting of the groups.

    Raises:
        MetricError: See `replicate_all`.
    """
    return replicate_all(scores, anomalous, groups, metrics=(metric,), replicates=replicates, seed=seed)[metric.name]


def replicate_all(
    scores: Real[np.ndarray, "draws n"],
    anomalous: LabelArray,
    groups: Int64[np.ndarray, " n"],
    *,
    metrics: Sequence[Metric] = tuple(IMAGE_METRICS.values()),
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Replicates]:
    """Several image-level metrics, by name; they share the resampling and the sorting.

    Args:
        scores: One row per support draw; the same images in the same order.
        anomalous: Label of an image.
        groups: Number of the patient, slide or cluster of near-duplicates that the image belongs to.
        metrics: Of `IMAGE_METRICS`.
        replicates: Number of resamplings.
        seed: Of the resampling alone; two methods with equal seeds see equal resamplings.

    Raises:
        MetricError: If a class is missing, a score isn't finite, lengths differ or there are too few groups of a class.
    """
    anomalous = as_labels(anomalous)
    resampled = resampling(groups, anomalous, replicates=replicates, seed=seed)
    if resampled.lacking:
        raise MetricError(resampled.lacking)
    return replicates_of(rankings(scores, anomalous), metrics, resampled, weigh=Ranking.curve)


def replicates_of(
    records: Sequence[Any],
    metrics: Sequence[Metric],
    resampled: Resampling,
    *,
    weigh: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Replicates]:
    """Metrics of any records of images as they are and under resampled images, by name.

    Args:
        records: What the metrics are computed of, one per support draw, of the same images in the same order.
        metrics: Their `statistic` takes a record and weights, or what `weigh` makes of both.
        resampled: Weights of the images.
        weigh: What the metrics share, computed for some of the replicates at a time; without it a statistic is given
            all of them at once, and bounds its memory itself.

    Raises:
        MetricError: If there is no draw.
    """
    if not records:
        raise MetricError("No support draw was given; an interval needs at least one.")
    curved = [metric for metric in metrics if metric.curved]
    parts = [(metrics, np.ones((len(resampled.weights), 1), dtype=np.float32))]  # first the images as they are
    for chosen, weights in ((metrics, resampled.weights), *([(curved, resampled.left_out)] if curved else [])):
        starts = range(_REPLICATES_AT_ONCE, weights.shape[1], _REPLICATES_AT_ONCE) if weigh else ()
        parts += [(chosen, part) for part in np.split(weights, starts, axis=1)]
    draws: list[dict[str, Float64[np.ndarray, " values"]]] = []
    for record in records:
        values = defaultdict[str, list[Float64[np.ndarray, " values"]]](list)
        for chosen, part in parts:
            arguments = (weigh(record, part),) if weigh else (record, part)
            for metric in chosen:
                values[metric.name].append(metric.statistic(*arguments))
        draws.append({name: np.concatenate(pieces) for name, pieces in values.items()})
    tables = {}
    for name in draws[0]:
        columns = np.stack([draw[name] for draw in draws], axis=1)
        measured, replicated, without = np.split(columns, [1, 1 + resampled.weights.shape[1]])
        table = Replicates.of(measured[0], replicated, resampled.precision, seed=resampled.seed)
        tables[name] = _widened(table, without, resampled.precision) if len(without) else table
    return tables


def _widened(table: Replicates, without: Float64[np.ndarray, "groups draws"], precision: Precision) -> Replicates:
    """Replicates as far from the figure as the jackknife's variance asks for, where that is the larger.

    Weights that never reach 0 hide what a curved metric owes to single groups: of average precision they showed 74 to
    91 % of the variance in simulations of 30 to 200 groups, the jackknife all of it (decision 0106).

    Args:
        table: Replicates of a metric.
        without: The metric of every draw with one group left out.
        precision: Of the groups.
    """
    moves = np.nan_to_num(without - table.measured).mean(axis=1)
    jackknifed = precision.left_out * float((moves**2).sum())
    shown = float(table.resampled.mean(axis=1).var())
    if shown <= 0 or jackknifed <= shown:
        return table
    distance = table.resampled - table.measured
    return replace(table, resampled=table.measured + float(np.sqrt(jackknifed / shown)) * distance)


def shifted(table: Replicates, values: Float64[np.ndarray, " draws"]) -> Replicates:
    """Replicates moved to where the exact values lie, by what the bins of a histogram cost."""
    return replace(table, measured=values, resampled=table.resampled + (values - table.measured))


def interval_of(table: Replicates, *, smooth: bool, level: float = 0.95) -> Interval:
    """Interval within [0, 1] from the replicates of a metric; `smooth` says that it is an area over all thresholds.

    The effective sample size of a draw, p (1 - p) / variance, is bounded by what the groups of the scarcer class can
    tell: three times their number for an area under a curve (at twice, the intervals of nearly perfect detectors held
    98 % in simulation, at four times too little), their number for a metric that depends on one threshold. So a perfect
    value of few images has an interval, and not a point. It is their number and not the effective one: the variance and
    Student's factor know the sizes already, and with both intervals held 99 to 100 % (decision 0082). Averaging over
    draws raises the size as the variances say. At a threshold the metric jumps, and the percentiles are joined in.

    Source: Wilson, JASA 22 (1927); the effective sample size is Korn and Graubard's, Survey Methodology 24 (1998).
    """
    from scipy.special import stdtrit

    estimate = min(max(table.mean, 0.0), 1.0)
    variance, freedom = variance_of(table)
    bound = size_limit(table.scarcer, smooth=smooth)
    of_one = float(table.resampled.var(axis=0).mean())
    spread = estimate * (1 - estimate)
    size = min(spread / of_one, bound) * of_one / variance if spread > 0 and of_one > 0 and variance > 0 else bound
    factor = -float(stdtrit(freedom, (1 - level) / 2))
    score = score_interval(estimate, size, factor)
    if smooth:
        return score
    percentile = percentile_interval(table, level=level)
    return Interval(max(min(score.low, percentile.low), 0.0), min(max(score.high, percentile.high), 1.0))


def size_limit(groups: int, *, smooth: bool) -> float:
    """The largest effective sample size that a number of groups allows, see `interval_of`."""
    return groups * (3.0 if smooth else 1.0)


def score_interval(estimate: float, size: float, factor: float) -> Interval:
    """Wilson's interval of a share in [0, 1].

    Args:
        estimate: The share.
        size: Effective sample size, above 0; infinity leaves no interval but the estimate.
        factor: Half its width in standard errors: 1.96 for 95 % and many groups.
    """
    squared = factor**2 / size
    centre = (estimate + squared / 2) / (1 + squared)
    half = float(np.sqrt(squared * (estimate * (1 - estimate) + squared / 4))) / (1 + squared)
    low = 0.0 if estimate == 0 else max(centre - half, 0.0)  # exactly, whatever rounding makes of the sum
    return Interval(low, 1.0 if estimate == 1 else min(centre + half, 1.0))


def percentile_interval(table: Replicates, *, level: float = 0.95) -> Interval:
    """Percentiles of the crossed replicates, stretched about the estimate to the right variance; for any metric."""
    from scipy.special import ndtri, stdtrit

    share = draw_weights(len(table.measured), replicates=len(table.resampled), seed=table.seed)
    crossed = (table.resampled * share).sum(axis=1)
    if np.ptp(crossed) == 0:
        return Interval(table.mean, table.mean)
    variance, freedom = variance_of(table)
    tail = (1 - level) / 2
    factor = float(np.sqrt(variance) / crossed.std() * stdtrit(freedom, tail) / ndtri(tail))
    low, high = (float(end) - table.mean for end in np.quantile(crossed, [tail, 1 - tail]))
    return Interval(table.mean + factor * low, table.mean + factor * high)


def variance_of(table: Replicates) -> tuple[float, float]:
    """Variance of the mean over draws, and its degrees of freedom by Satterthwaite's rule.

    A replicate that resamples groups and draws has the expected variance A + B + 3E, where A, B and E are the shares of
    groups, draws and single cells in the true variance A + B + E (McCullagh, Bernoulli 6, 2000; Owen, Annals of
    Applied Statistics 1, 2007). Resampling groups alone shows A + E, the draws as they are B + E, the draws of
    resampled groups B + 2E.
    """
    of_groups = float(table.resampled.mean(axis=1).var())
    draws = len(table.measured)
    if draws == 1:
        return of_groups, table.freedom
    of_draws = float(table.measured.var(ddof=1)) / draws
    of_cells = max(float(table.resampled.var(axis=1, ddof=1).mean()) / draws - of_draws, 0.0)
    of_draws = max(of_draws - of_cells, 0.0)
    total = of_groups + of_draws
    if total == 0:
        return 0.0, table.freedom
    return total, total**2 / (of_groups**2 / table.freedom + of_draws**2 / (draws - 1))
