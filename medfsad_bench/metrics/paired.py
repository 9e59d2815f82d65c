"""Whether two methods differ: on the same images and draws, for these targets, and for others like them.

one target     the replicates of both methods have the same resamplings, so their difference is one more metric
targets        mean of the targets' differences: its error for these targets, and for new ones (spread over targets)
many pairs     Holm's steps, and letters: methods that share one can't be told apart
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.delong import Measurement
from medfsad_bench.metrics.interval import Replicates, percentile_interval, variance_of


@dataclass(frozen=True, slots=True)
class Difference:
    """First method minus second.

    Attributes:
        value: Difference of the means over draws.
        low: Lower end of its interval.
        high: Upper end.
        p: Two-sided p value of no difference; at least what the replicates can show.
        error: Standard error.
        freedom: Degrees of freedom of the standard error.
        effect: Difference of the separations, see `separation`; None for what is no area under a ROC curve.
    """

    value: float
    low: float
    high: float
    p: float
    error: float
    freedom: float
    effect: float | None = None


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
    first: Replicates, second: Replicates, *, with_effect: bool = False, pairs: int | None = None, level: float = 0.95
) -> Difference:
    """Difference of two methods on one target, from replicates with the same seed, images and draws.

    Args:
        first: Of one method.
        second: Of the other.
        with_effect: Whether the effect is stated, which takes a metric that `has_effect_size`.
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
    measured = Measurement(table.mean, float(np.sqrt(variance)), freedom)
    interval = percentile_interval(table, level=level)
    effect = separation(first.mean, pairs) - separation(second.mean, pairs) if with_effect else None
    return Difference(
        value=table.mean,
        low=interval.low,
        high=interval.high,
        p=_p_value(measured, floor=1 / (len(table.resampled) + 1)),
        error=measured.error,
        freedom=measured.freedom,
        effect=effect,
    )


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


def mean_over_targets(differences: Sequence[Difference], *, level: float = 0.95) -> MeanDifference:
    """Mean of the targets' differences, each counting the same, as the board's mean does.

    A hierarchy of two stages: images and draws within a target, targets among targets. For these targets the error is
    that of the first stage; for other ones it is the spread of the differences, which holds both stages, with Student's
    factor of targets - 1 degrees of freedom.

    Raises:
        MetricError: If there is no difference.
    """
    if not differences:
        raise MetricError("No target was given; a mean difference needs at least one.")
    values = np.array([difference.value for difference in differences])
    variances = np.array([difference.error**2 for difference in differences])
    count, mean = len(values), float(values.mean())
    total = float(variances.sum())
    shares = float((variances**2 / [difference.freedom for difference in differences]).sum())
    within = Measurement(mean, float(np.sqrt(total)) / count, total**2 / shares if shares > 0 else 1.0)
    effects = [difference.effect for difference in differences if difference.effect is not None]
    effect = float(np.mean(effects)) if len(effects) == count else None
    if count == 1:
        return MeanDifference(differences[0], None)
    between = Measurement(mean, float(values.std(ddof=1) / np.sqrt(count)), float(count - 1))
    return MeanDifference(
        difference_of(within, effect=effect, level=level), difference_of(between, effect=effect, level=level)
    )


def difference_of(measured: Measurement, *, effect: float | None = None, level: float = 0.95) -> Difference:
    """A measured difference with its interval by Student's t, within [-1, 1], as every metric is within [0, 1]."""
    from scipy.stats import t

    half = float(t.isf((1 - level) / 2, measured.freedom)) * measured.error
    return Difference(
        value=measured.value,
        low=max(measured.value - half, -1.0),
        high=min(measured.value + half, 1.0),
        p=_p_value(measured, floor=0.0),
        error=measured.error,
        freedom=measured.freedom,
        effect=effect,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number, by Holm's steps (Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for step, index in enumerate(order):
        highest = max(highest, min(p_values[index] * (len(p_values) - step), 1.0))
        adjusted[int(index)] = highest
    return adjusted


def letters(names: Sequence[str], apart: Mapping[tuple[str, str], bool]) -> dict[str, str]:
    """Letters by name, best name first: two that share a letter can't be told apart.

    Args:
        names: From the best to the worst.
        apart: For every pair, in the order of `names`, whether the two are told apart.

    Source: the insert-and-absorb algorithm of Piepho, Journal of Computational and Graphical Statistics 13 (2004).

    >>> letters(["x", "y", "z"], {("x", "y"): False, ("y", "z"): False, ("x", "z"): True})
    {'x': 'a', 'y': 'ab', 'z': 'b'}
    """
    columns = [frozenset(names)]
    for pair, differ in apart.items():
        if not differ:
            continue
        split = [part for column in columns for part in _without_both(column, *pair)]
        columns = [column for column in dict.fromkeys(split) if not any(column < wider for wider in split)]
    rank = {name: number for number, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(rank[name] for name in column))
    signs = [chr(ord("a") + number % 26) * (number // 26 + 1) for number in range(len(columns))]
    return {
        name: "".join(sign for sign, column in zip(signs, columns, strict=True) if name in column) for name in names
    }


def _without_both(column: frozenset[str], first: str, second: str) -> list[frozenset[str]]:
    return [column - {first}, column - {second}] if {first, second} <= column else [column]


def _p_value(measured: Measurement, *, floor: float) -> float:
    from scipy.stats import t

    if measured.error == 0:
        return 1.0 if measured.value == 0 else floor
    return max(float(2 * t.sf(abs(measured.value) / measured.error, measured.freedom)), floor)
