"""Whether two methods differ: on the same images and draws, for these targets, and for others like them.

one target     the replicates of both methods have the same weights, so their difference is one more metric
targets        mean of the targets' differences: its error for these targets, and for new ones (spread over targets)
many pairs     Holm's steps, and letters: methods that share one can't be told apart

The interval of a difference d that can't pass ± r is Wilson's of (1 + d / r) / 2, so it doesn't pass ± r either; its p
value is of the same score statistic, so it is below 0.05 exactly where the 95 % interval excludes 0.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.delong import Measurement
from medfsad_bench.metrics.interval import Replicates, score_interval, size_limit, variance_of
from medfsad_bench.metrics.metric import IMAGE_AUROC, Metric


@dataclass(frozen=True, slots=True)
class Difference:
    """First method minus second.

    Attributes:
        value: Difference of the means over draws.
        low: Lower end of its interval; None where too few groups allow none.
        high: Upper end.
        p: Two-sided p value of no difference; at least what the replicates can show. None where there is no interval.
        error: Standard error.
        freedom: Degrees of freedom of the standard error.
        effect: Difference of the separations, see `separation`; None for what is no area under a ROC curve.
        reason: Why there is no interval; empty if there is one.
        measured: What it was made of; None where there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    error: float | None
    freedom: float | None
    effect: float | None = None
    reason: str = ""
    measured: Measurement | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """With its sign, and its interval where it has one, as `-0.041 [-0.111, +0.030]`."""
        ends = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.value:+.3f}{ends}"

    def figures(self) -> dict[str, Any]:
        """Its figures as JSON has them."""
        return {name: value for name, value in asdict(replace(self, measured=None)).items() if name != "measured"}


@dataclass(frozen=True, slots=True)
class MeanDifference:
    """The mean difference over targets, equally weighted.

    Attributes:
        these_targets: What other images and draws of these targets would do.
        other_targets: What other targets like these would do: the spread between targets is part of the error; None
            for one target.
    """

    these_targets: Difference
    other_targets: Difference | None


def paired_difference(
    first: Replicates,
    second: Replicates,
    *,
    metric: Metric = IMAGE_AUROC,
    pairs: int | None = None,
    level: float = 0.95,
) -> Difference:
    """Difference of two methods on one target, from replicates with the same seed, images and draws.

    Args:
        first: Of one method.
        second: Of the other.
        metric: What they are replicates of.
        pairs: Number of pairs of an anomalous and a normal image, for `separation`.
        level: Confidence.

    Raises:
        MetricError: If the two aren't of the same draws and resamplings.
    """
    if first.resampled.shape != second.resampled.shape or first.seed != second.seed:
        raise MetricError(
            f"The replicates have shapes {first.resampled.shape} and {second.resampled.shape} and seeds {first.seed} "
            f"and {second.seed}; a paired difference needs the same draws and resamplings."
        )
    table = replace(first, measured=first.measured - second.measured, resampled=first.resampled - second.resampled)
    variance, freedom = variance_of(table)
    of_groups = table.resampled.mean(axis=1)
    measured = Measurement(
        table.mean,
        float(np.sqrt(variance)),
        freedom,
        size_limit(table.scarcer, smooth=metric.smooth),
        pd.Series((of_groups - of_groups.mean()) / np.sqrt(len(of_groups))),
    )
    effect = separation(first.mean, pairs) - separation(second.mean, pairs) if metric.has_effect_size else None
    floor = 1 / (len(of_groups) + 1)
    return difference_of(measured, metric=metric, effect=effect, level=level, smallest_p=floor)


def separation(auroc: float, pairs: int | None = None) -> float:
    """Distance of two normal distributions of equal spread that have this AUROC, in standard deviations: √2 Φ⁻¹(AUROC).

    Cohen's d of normal and anomalous scores where they are normal, and blind to any monotone change of them. AUROC is
    kept off 0 and 1 by half a pair.

    >>> round(separation(0.76), 2)
    1.0
    """
    from scipy.special import ndtri

    margin = 0.5 / pairs if pairs else 1e-9
    return float(np.sqrt(2) * ndtri(min(max(auroc, margin), 1 - margin)))


def mean_over_targets(
    differences: Sequence[Difference],
    *,
    families: Sequence[str] | None = None,
    metric: Metric = IMAGE_AUROC,
    level: float = 0.95,
) -> MeanDifference:
    """Mean of the targets' differences, each counting the same, as the board's mean does.

    A hierarchy of two stages: images and draws within a target, targets among targets. For these targets the error is
    that of the first stage; for other ones it is the spread of the differences, which holds both stages, with Student's
    factor of targets - 1 degrees of freedom. Targets of one family share images or patients: these have the same
    weights in all of them, and the differences' covariance is part of the error.

    Args:
        differences: One per target.
        families: What a target has in common with those that it shares images or patients with; by default it shares
            none.
        metric: What they are differences of.
        level: Confidence.

    Raises:
        MetricError: If there is no difference.
    """
    if not differences:
        raise MetricError("No target was given; a mean difference needs at least one.")
    count = len(differences)
    if count == 1:
        return MeanDifference(differences[0], None)
    values = np.array([difference.value for difference in differences])
    effects = [difference.effect for difference in differences if difference.effect is not None]
    effect = float(np.mean(effects)) if len(effects) == count else None
    options: dict[str, Any] = {"metric": metric, "effect": effect, "level": level}
    between = Measurement(float(values.mean()), float(values.std(ddof=1) / np.sqrt(count)), float(count - 1))
    reasons = "; ".join(dict.fromkeys(difference.reason for difference in differences if difference.reason))
    if reasons:
        these = without_interval(between.value, effect=effect, reason=reasons)
    else:
        within = _mean_of(differences, families or [str(number) for number in range(count)])
        these = difference_of(within, **options)
    return MeanDifference(these, difference_of(between, **options))


def difference_of(
    measured: Measurement,
    *,
    metric: Metric = IMAGE_AUROC,
    effect: float | None = None,
    level: float = 0.95,
    smallest_p: float = 0.0,
) -> Difference:
    """A measured difference with its interval, which lies within what differences of the metric can be.

    The effective sample size p (1 - p) / variance of p = (1 + d / r) / 2 is bounded: n paired values within ± r whose
    mean is d vary by |d / r| (1 - |d / r|) / n at least if each is -r, 0 or r, as at a threshold. So a difference of
    ± r has an interval, and not a point; one of 0 may be certain.

    Args:
        measured: The difference with its standard error.
        metric: What it is a difference of.
        effect: Difference of the separations.
        level: Confidence.
        smallest_p: What p can't be below.
    """
    from scipy.special import stdtr, stdtrit

    reach = metric.high - metric.low
    share, error = measured.value / reach, measured.error / reach
    facts = measured.error, measured.freedom, effect
    if share == 0 and error == 0:
        return Difference(measured.value, measured.value, measured.value, 1.0, *facts, measured=measured)
    size = float(effective_size(share, error, measured.size_limit))
    ends = score_interval((1 + share) / 2, size, -float(stdtrit(measured.freedom, (1 - level) / 2)))
    low, high = reach * (2 * ends.low - 1), reach * (2 * ends.high - 1)
    p = max(float(2 * stdtr(measured.freedom, -abs(share) * np.sqrt(size))), smallest_p)
    return Difference(measured.value, low, high, p, *facts, measured=measured)


def effective_size(
    share: float | Float64[np.ndarray, " pairs"],
    error: float | Float64[np.ndarray, " pairs"],
    limit: float | Float64[np.ndarray, " pairs"],
) -> Float64[np.ndarray, "*pairs"]:
    """Number of pairs that a difference counts for, of one or of many; see `difference_of`.

    Args:
        share: The difference, as a share of what differences can be.
        error: Its standard error, in the same unit.
        limit: What the number of groups allows.
    """
    share, error, limit = (np.asarray(values, np.float64) for values in (share, error, limit))
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(error > 0, np.maximum((1 - share**2) / error**2, 1e-9), np.inf)
        allowed = limit * (1 + np.abs(share)) / np.abs(share)
    return np.where(share == 0, size, np.minimum(size, allowed))


def without_interval(value: float, *, reason: str, effect: float | None = None) -> Difference:
    """A difference of which nothing but its value can be said, and why."""
    return Difference(value, None, None, None, None, None, effect, reason)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number, by Holm's steps (Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum(values[order] * np.arange(len(values), 0, -1), 1.0))
    return adjusted.tolist()


def letters(names: Sequence[str], apart: Mapping[tuple[str, str], bool]) -> dict[str, str]:
    """Letters by name, best name first: two that share a letter can't be told apart.

    Args:
        names: From the best to the worst.
        apart: For every pair, in the order of `names`, whether the two are told apart.

    A letter stands for a largest possible set of methods none of which is told from another: a maximal clique.

    Source: Piepho, Journal of Computational and Graphical Statistics 13 (2004), whose insert-and-absorb gives the same
    sets in a time that grows with the square of their number.

    >>> letters(["x", "y", "z"], {("x", "y"): False, ("y", "z"): False, ("x", "z"): True})
    {'x': 'a', 'y': 'ab', 'z': 'b'}
    """
    import networkx as nx

    alike = nx.Graph()
    alike.add_nodes_from(names)
    alike.add_edges_from(pair for pair, differ in apart.items() if not differ)
    columns = [frozenset(clique) for clique in nx.find_cliques(alike)]
    rank = {name: number for number, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(rank[name] for name in column))
    signs = [chr(ord("a") + number % 26) * (number // 26 + 1) for number in range(len(columns))]
    shown = dict.fromkeys(names, "")
    for sign, column in zip(signs, columns, strict=True):
        for name in column:
            shown[name] += sign
    return shown


def _mean_of(differences: Sequence[Difference], families: Sequence[str]) -> Measurement:
    """Mean of targets' values: variances add up, within a family with their covariances; so do limits of size."""
    count = len(differences)
    parts = [(each.error, each.freedom, each.measured) for each in differences]
    with_error = [(error, freedom, of) for error, freedom, of in parts if error is not None and freedom and of]
    variances, freedoms = [], []
    for family in dict.fromkeys(families):
        members = [each for each, of in zip(with_error, families, strict=True) if of == family]
        covariances = (
            2 * float((first.deviations * second.deviations).sum())
            for (*_, first), (*_, second) in itertools.combinations(members, 2)
        )
        variances.append(max(sum(error**2 for error, *_ in members) + sum(covariances), 0.0))
        freedoms.append(min(freedom for _, freedom, _ in members))
    total = sum(variances)
    shares = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return Measurement(
        float(np.mean([each.value for each in differences])),
        float(np.sqrt(total)) / count,
        total**2 / shares if shares > 0 else 1.0,
        sum(measured.size_limit for *_, measured in with_error),
    )
