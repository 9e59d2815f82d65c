"""Whether two methods differ: on the same images and draws, for these targets, and for others like them.

one target     the replicates of both methods have the same resamplings, so their difference is one more figure
targets        mean of the targets' differences: its error for these targets, and for new ones (spread over targets)
many pairs     Holm's steps, and letters: methods that share one can't be told apart
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.delong import ValueWithError
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
class Pooled:
    """The mean difference over targets, equally weighted.

    Attributes:
        here: For these targets: what other images and draws of them would do.
        elsewhere: For other targets like these: the spread between targets is part of the error; None for one target.
    """

    here: Difference
    elsewhere: Difference | None


def paired_difference(
    first: Replicates, second: Replicates, *, area: bool = False, pairs: int | None = None, level: float = 0.95
) -> Difference:
    """Difference of two methods on one target, from replicates with the same seed, images and draws.

    Args:
        first: Of the one method.
        second: Of the other.
        area: Whether the figure is an area under a ROC curve, so that an effect can be stated.
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
    interval = percentile_interval(table, level=level)
    effect = separation(first.estimate, pairs) - separation(second.estimate, pairs) if area else None
    return Difference(
        value=table.estimate,
        low=interval.low,
        high=interval.high,
        p=_p_value(
            ValueWithError(table.estimate, float(np.sqrt(variance)), freedom), floor=1 / (len(table.resampled) + 1)
        ),
        error=float(np.sqrt(variance)),
        freedom=freedom,
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


def pool(differences: Sequence[Difference], *, level: float = 0.95) -> Pooled:
    """Mean of the targets' differences, each counting the same, as the board's mean does.

    A hierarchy of two stages: images and draws within a target, targets among targets. For these targets the error is
    that of the first stage; for other ones it is the spread of the differences, which holds both stages, with Student's
    factor of targets - 1 degrees of freedom.

    Raises:
        MetricError: If there is no difference.
    """
    if not differences:
        raise MetricError("No target was given; a pooled difference needs at least one.")
    values = np.array([difference.value for difference in differences])
    variances = np.array([difference.error**2 for difference in differences])
    count, mean = len(values), float(values.mean())
    total = float(variances.sum())
    shares = float((variances**2 / [difference.freedom for difference in differences]).sum())
    here = ValueWithError(mean, float(np.sqrt(total)) / count, total**2 / shares if shares > 0 else 1.0)
    effects = [difference.effect for difference in differences if difference.effect is not None]
    effect = float(np.mean(effects)) if len(effects) == count else None
    if count == 1:
        return Pooled(differences[0], None)
    spread = ValueWithError(mean, float(values.std(ddof=1) / np.sqrt(count)), float(count - 1))
    return Pooled(_student(here, effect, level=level), _student(spread, effect, level=level))


def difference_of(estimate: ValueWithError, *, effect: float | None = None, level: float = 0.95) -> Difference:
    """An estimate with its interval by Student's t."""
    return _student(estimate, effect, level=level)


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
    for (one, other), differ in apart.items():
        if not differ:
            continue
        split = [part for held in columns for part in _without_both(held, one, other)]
        columns = [held for held in dict.fromkeys(split) if not any(held < wider for wider in split)]
    place = {name: number for number, name in enumerate(names)}
    columns.sort(key=lambda held: sorted(place[name] for name in held))
    return {name: "".join(_letter(number) for number, held in enumerate(columns) if name in held) for name in names}


def _without_both(held: frozenset[str], one: str, other: str) -> list[frozenset[str]]:
    return [held - {one}, held - {other}] if {one, other} <= held else [held]


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) * (number // 26 + 1)


def _student(estimate: ValueWithError, effect: float | None, *, level: float) -> Difference:
    """Within [-1, 1], as every figure is within [0, 1]."""
    from scipy.stats import t

    half = float(t.isf((1 - level) / 2, estimate.freedom)) * estimate.error
    return Difference(
        value=estimate.value,
        low=max(estimate.value - half, -1.0),
        high=min(estimate.value + half, 1.0),
        p=_p_value(estimate, floor=0.0),
        error=estimate.error,
        freedom=estimate.freedom,
        effect=effect,
    )


def _p_value(estimate: ValueWithError, *, floor: float) -> float:
    from scipy.stats import t

    if estimate.error == 0:
        return 1.0 if estimate.value == 0 else floor
    return max(float(2 * t.sf(abs(estimate.value) / estimate.error, estimate.freedom)), floor)
