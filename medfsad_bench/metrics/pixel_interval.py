"""Confidence intervals of pixel figures, from per-image tallies and never from the pixels again.

Groups of images are resampled with all their pixels: pixels of an image, images of a patient are no independent
observations. A replicate's figure is that of the weighted sum of tallies.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.interval import Interval, Replicates, interval_of
from medfsad_bench.metrics.resample import group_weights, strata_of
from medfsad_bench.metrics.score_histogram import PIXEL_STATISTICS, ScoreHistogram, pixel_curve

_REPLICATES_AT_ONCE = 256  # bounds memory: bins × 256 × 8 bytes × a handful of arrays


def pixel_bootstrap_interval(
    tallies: Sequence[ScoreHistogram],
    groups: Int64[np.ndarray, " n"],
    *,
    metric: str = "aupro_fpr30_conn8",
    figures: Sequence[float] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the mean over support draws of a pixel figure, for new images and new draws.

    Args:
        tallies: `pixel_histogram` of a draw's maps, one a draw, of the same images in the same order.
        groups: Number of the patient, slide or cluster of near-duplicates that an image belongs to.
        metric: A name of `medfsad_bench.metrics.score_histogram.PIXEL_STATISTICS`.
        figures: The exact figure of every draw; the interval is shifted by what the bins cost.
        replicates: Number of resamplings.
        level: Confidence.
        seed: Of the resampling alone.

    Raises:
        MetricError: If images and groups don't match, a class is missing or there are too few groups of a class.
    """
    table = pixel_replicate(tallies, groups, metric=metric, replicates=replicates, seed=seed)
    if figures is not None:
        table = shifted(table, np.asarray(figures, dtype=np.float64))
    return interval_of(table, area=metric != "dice_max_oracle", level=level)


def pixel_replicate(
    tallies: Sequence[ScoreHistogram],
    groups: Int64[np.ndarray, " n"],
    *,
    metric: str = "aupro_fpr30_conn8",
    replicates: int = 2000,
    seed: int = 0,
) -> Replicates:
    """The pixel figure of every draw under every resampling of the groups, for intervals and paired differences.

    Raises:
        MetricError: See `pixel_bootstrap_interval`.
    """
    return pixel_replicate_all(tallies, groups, metrics=(metric,), replicates=replicates, seed=seed)[metric]


def pixel_replicate_all(
    tallies: Sequence[ScoreHistogram],
    groups: Int64[np.ndarray, " n"],
    *,
    metrics: Sequence[str] = tuple(PIXEL_STATISTICS),
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Replicates]:
    """`pixel_replicate` for several metrics, which share the resampling and the sums of tallies.

    Raises:
        MetricError: See `pixel_bootstrap_interval`.
    """
    if unknown := sorted(set(metrics) - set(PIXEL_STATISTICS)):
        raise MetricError(f"Unknown pixel metric {unknown[0]!r}; expected one of {', '.join(PIXEL_STATISTICS)}.")
    if not tallies:
        raise MetricError("No support draw was given; an interval needs the tally of at least one.")
    strata = strata_of(groups, tallies[0].regions > 0, normal=tallies[0].normal.sum(axis=1) > 0)
    weights = group_weights(strata, replicates=replicates, seed=seed)
    whole = np.ones((len(groups), 1), dtype=np.float32)
    measured = [_resampled(tally, whole, metrics) for tally in tallies]
    resampled = [_resampled(tally, weights, metrics) for tally in tallies]
    return {
        metric: Replicates(
            np.array([float(draw[metric][0]) for draw in measured]),
            np.stack([draw[metric] for draw in resampled], axis=1),
            strata,
            seed,
        )
        for metric in metrics
    }


def shifted(table: Replicates, figures: Float64[np.ndarray, " draws"]) -> Replicates:
    """Replicates moved to where the exact figures lie, by what the bins cost."""
    return replace(table, measured=figures, resampled=table.resampled + (figures - table.measured))


def _resampled(
    tally: ScoreHistogram, weights: Float32[np.ndarray, "n replicates"], metrics: Sequence[str]
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    starts = range(0, weights.shape[1], _REPLICATES_AT_ONCE)
    curves = (pixel_curve(tally, weights[:, start : start + _REPLICATES_AT_ONCE]) for start in starts)
    parts = [[PIXEL_STATISTICS[metric](c) for metric in metrics] for c in curves]
    return {metric: np.concatenate([part[place] for part in parts]) for place, metric in enumerate(metrics)}
