"""Lesion and box estimates of a run, from the records of its draws: overall, and by the size of the lesions."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64, Real

from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.metrics.interval import Replicates
from medfsad_bench.metrics.lesion import LesionRecord
from medfsad_bench.metrics.metric import BOX_RECALL, FROC, LESION_SENSITIVITY, POINTING_GAME, Metric
from medfsad_bench.metrics.resample import Strata, group_weights, strata_of

SHARES = (0.001, 0.01)  # of its image's area: where a small lesion ends, and where a large one begins


def lesion_estimates(
    draws: Sequence[LesionRecord], groups: Int64[np.ndarray, " n"], *, boxes: bool, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, str]]:
    """Estimates, those by lesion size, and what can't be stated with the reason.

    Args:
        draws: One per support draw, of the same images.
        groups: Group number of every image.
        boxes: Whether the truth is boxes: then only what boxes support.
        seed: Of the bootstrap.
    """
    has_lesion = np.isfinite(draws[0].pointing)
    every = bool(has_lesion.all())
    strata = strata_of(groups, has_lesion, normal=np.ones_like(has_lesion) if every else None)
    weights = group_weights(strata, replicates=REPLICATES, seed=seed)
    estimate = partial(_estimate, draws, weights, strata, seed=seed)
    recall = BOX_RECALL if boxes else LESION_SENSITIVITY
    estimates = {metric.name: estimate(metric) for metric in ((FROC, POINTING_GAME) if boxes else (FROC,))}
    if every:
        why = "every test image has a lesion, so that no share of normal images can be set"
        return estimates, {}, {recall.name: why}
    estimates[recall.name] = estimate(recall)
    by_size = {
        f"{recall.name}[lesion {name}]": estimate(recall, lesions=lesions)
        for name, lesions in _size_groups(draws[0]).items()
    }
    return estimates, by_size, {}


def size_names(edges: Sequence[float]) -> list[str]:
    """Names of the groups between shares of an area.

    >>> size_names((0.001, 0.01))
    ['below 0.1 %', '0.1 to 1 %', 'from 1 %']
    """
    shown = [f"{100 * edge:g}" for edge in edges]
    inner = [f"{low} to {high} %" for low, high in zip(shown, shown[1:], strict=False)]  # noqa: RUF007 - of a list
    return [f"below {shown[0]} %", *inner, f"from {shown[-1]} %"]


def _estimate(
    draws: Sequence[LesionRecord],
    weights: Real[np.ndarray, "n replicates"],
    strata: Strata,
    metric: Metric,
    *,
    seed: int,
    **options: Bool[np.ndarray, " lesions"],
) -> Estimate:
    def values(weights: Real[np.ndarray, "n replicates"]) -> list[Float[np.ndarray, " replicates"]]:
        return [metric.statistic(draw, weights, **options) for draw in draws]

    measured = np.array([float(value[0]) for value in values(np.ones((len(weights), 1)))])
    return metric_estimate(metric, Replicates(measured, np.stack(values(weights), axis=1), strata, seed))


def _size_groups(draw: LesionRecord) -> dict[str, Bool[np.ndarray, " lesions"]]:
    group = np.searchsorted(SHARES, draw.lesion_share, side="right")
    return {name: group == number for number, name in enumerate(size_names(SHARES)) if (group == number).any()}
