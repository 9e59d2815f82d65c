"""Curves of a run with their bands: each point is an estimate, mean over draws, with an interval of its own.

A band holds 95 % at each point by itself, not the whole curve at once. Points are exact values at stated rates: no
interpolation between thresholds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int64

from medfsad_bench.estimates.estimate import Estimate, metric_estimate
from medfsad_bench.estimates.image import ScoreMatrix
from medfsad_bench.metrics import curve, lesion
from medfsad_bench.metrics.interval import Replicates, replicates_of
from medfsad_bench.metrics.metric import Metric
from medfsad_bench.metrics.resample import resampling

FALSE_POSITIVE_RATES = tuple(np.linspace(0, 1, 21).round(2).tolist())
RECALLS = tuple(np.linspace(0.05, 1, 20).round(2).tolist())
_REPLICATES = 400  # a band is looked at, not quoted


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve.

    Attributes:
        at: The rate at which it is taken.
        estimate: What is reached there.
    """

    at: float
    estimate: Estimate


def roc_curve(matrix: ScoreMatrix, *, seed: int = 0) -> list[Point]:
    """Sensitivity at each false-positive rate: the largest among the thresholds that keep it.

    Raises:
        MetricError: If a class is missing or a score isn't finite.
    """

    def at(rate: float) -> Callable[..., Any]:
        return partial(curve.sensitivity_at_specificity, specificity=1 - rate - 1e-9)

    return _of_scores(matrix, FALSE_POSITIVE_RATES, at, seed=seed)


def precision_recall_curve(matrix: ScoreMatrix, *, seed: int = 0) -> list[Point]:
    """Precision at each recall: that of the highest threshold which reaches it.

    Raises:
        MetricError: If a class is missing or a score isn't finite.
    """
    return _of_scores(matrix, RECALLS, lambda rate: partial(curve.precision_at_recall, recall=rate), seed=seed)


def froc_curve(draws: Sequence[lesion.LesionRecord], groups: Int64[np.ndarray, " n"], *, seed: int = 0) -> list[Point]:
    """Share of lesions found at each of `metrics.lesion.FALSE_POSITIVES` false detections per image.

    Args:
        draws: One record per support draw, of the same images.
        groups: Key of every image's group.
        seed: Of the bootstrap.
    """
    has_lesion = np.isfinite(draws[0].pointing)
    normal = np.ones_like(has_lesion) if has_lesion.all() else ~has_lesion
    found_at = partial(lesion.sensitivity_at_fp, by="detections")
    metrics = [_metric(at, partial(found_at, allowed=(at,))) for at in lesion.FALSE_POSITIVES]
    resampled = resampling(groups, has_lesion, normal=normal, replicates=_REPLICATES, seed=seed)
    return _points(metrics, replicates_of(draws, metrics, resampled))


def _of_scores(
    matrix: ScoreMatrix, rates: Sequence[float], statistic_at: Callable[[float], Callable[..., Any]], *, seed: int
) -> list[Point]:
    metrics = [_metric(at, statistic_at(at)) for at in rates]
    resampled = resampling(matrix.groups, matrix.anomalous, replicates=_REPLICATES, seed=seed)
    rankings = curve.rankings(matrix.scores, matrix.anomalous)
    return _points(metrics, replicates_of(rankings, metrics, resampled, weigh=curve.Ranking.curve))


def _metric(at: float, statistic: Callable[..., Any]) -> Metric:
    return Metric(f"{at:g}", "", statistic, statistic, source="")


def _points(metrics: Sequence[Metric], tables: Mapping[str, Replicates]) -> list[Point]:
    return [Point(float(metric.name), metric_estimate(metric, tables[metric.name])) for metric in metrics]
