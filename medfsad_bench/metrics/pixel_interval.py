"""Pixel metrics under resampled images, from a histogram per image and never from the pixels again.

Groups of images are resampled with all their pixels: pixels of an image, images of a patient are no independent
observations. A replicate's metric is that of the weighted sum of histograms.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.interval import Replicates
from medfsad_bench.metrics.metric import PIXEL_CURVE_METRICS, Metric
from medfsad_bench.metrics.resample import group_weights, strata_of
from medfsad_bench.metrics.score_histogram import ScoreHistogram, pixel_curve

_REPLICATES_AT_ONCE = 256  # bounds memory: bins × 256 × 8 bytes × a handful of arrays


def pixel_replicate_all(
    histograms: Sequence[ScoreHistogram],
    groups: Int64[np.ndarray, " n"],
    *,
    metrics: Sequence[Metric] = tuple(PIXEL_CURVE_METRICS.values()),
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Replicates]:
    """Pixel metrics of every draw under every resampling of the groups, by name, for intervals and differences.

    Args:
        histograms: `pixel_histogram` of each draw's maps, of the same images in the same order.
        groups: Number of the patient, slide or cluster of near-duplicates that an image belongs to.
        metrics: Of `PIXEL_CURVE_METRICS`; they share the resampling and the sums of histograms.
        replicates: Number of resamplings.
        seed: Of the resampling alone.

    Raises:
        MetricError: If images and groups don't match, a class is missing or there are too few groups of a class.
    """
    if not histograms:
        raise MetricError("No support draw was given; an interval needs the histogram of at least one.")
    strata = strata_of(groups, histograms[0].regions > 0, normal=histograms[0].normal.sum(axis=1) > 0)
    weights = group_weights(strata, replicates=replicates, seed=seed)
    ones = np.ones((len(groups), 1), dtype=np.float32)
    measured = [_under_weights(histogram, ones, metrics) for histogram in histograms]
    resampled = [_under_weights(histogram, weights, metrics) for histogram in histograms]
    return {
        metric.name: Replicates(
            np.array([float(draw[metric.name][0]) for draw in measured]),
            np.stack([draw[metric.name] for draw in resampled], axis=1),
            strata,
            seed,
        )
        for metric in metrics
    }


def shifted(table: Replicates, values: Float64[np.ndarray, " draws"]) -> Replicates:
    """Replicates moved to where the exact values lie, by what the bins cost."""
    return replace(table, measured=values, resampled=table.resampled + (values - table.measured))


def _under_weights(
    histogram: ScoreHistogram, weights: Float32[np.ndarray, "n replicates"], metrics: Sequence[Metric]
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    starts = range(0, weights.shape[1], _REPLICATES_AT_ONCE)
    curves = (pixel_curve(histogram, weights[:, start : start + _REPLICATES_AT_ONCE]) for start in starts)
    parts = [[metric.statistic(c) for metric in metrics] for c in curves]
    return {metric.name: np.concatenate([part[index] for part in parts]) for index, metric in enumerate(metrics)}
