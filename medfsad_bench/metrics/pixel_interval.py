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
from medfsad_bench.metrics.tally import PIXEL_STATISTICS, Tally, pixel_curve

_REPLICATES_AT_ONCE = 256  # bounds memory: bins × 256 × 8 bytes × a handful of arrays


def pixel_bootstrap_interval(
    tallies: Sequence[Tally],
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
        tallies: `tally_pixels` of a draw's maps, one a draw, of the same images in the same order.
        groups: Number of the patient, slide or cluster of near-duplicates that an image belongs to.
        metric: A name of `medfsad_bench.metrics.tally.PIXEL_STATISTICS`.
        figures: The exact figure of every draw; the interval is shifted by what the bins cost.
        replicates: Number of resamplings.
        level: Confidence.
        seed: Of the resampling alone.

    Raises:
        MetricError: If images and groups don't match, a class is missing or there are too few groups of a class.
    """
    table = pixel_replicate(tallies, groups, metric=metric, replicates=replicates, seed=seed)
    if figures is not None:
        measured = np.asarray(figures, dtype=np.float64)
        table = replace(table, measured=measured, resampled=table.resampled + (measured - table.measured))
    return interval_of(table, area=metric != "dice_max_oracle", level=level)


def pixel_replicate(
    tallies: Sequence[Tally],
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
    if metric not in PIXEL_STATISTICS:
        raise MetricError(f"Unknown pixel metric {metric!r}; expected one of {', '.join(PIXEL_STATISTICS)}.")
    if not tallies:
        raise MetricError("No support draw was given; an interval needs the tally of at least one.")
    strata = strata_of(groups, tallies[0].regions > 0, normal=tallies[0].normal.sum(axis=1) > 0)
    weights = group_weights(strata, replicates=replicates, seed=seed)
    whole = np.ones((len(groups), 1), dtype=np.float32)
    measured = np.array([float(PIXEL_STATISTICS[metric](pixel_curve(tally, whole))[0]) for tally in tallies])
    resampled = np.stack([_resampled(tally, weights, metric=metric) for tally in tallies], axis=1)
    return Replicates(measured, resampled, strata, seed)


def _resampled(
    tally: Tally, weights: Float32[np.ndarray, "n replicates"], *, metric: str
) -> Float64[np.ndarray, " replicates"]:
    starts = range(0, weights.shape[1], _REPLICATES_AT_ONCE)
    parts = [weights[:, start : start + _REPLICATES_AT_ONCE] for start in starts]
    return np.concatenate([PIXEL_STATISTICS[metric](pixel_curve(tally, part)) for part in parts])
