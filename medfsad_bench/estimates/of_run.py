"""All estimates of a row, from what a run stored: the same call makes the row and, years later, checks it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medfsad_bench.estimates.estimate import REPLICATES
from medfsad_bench.estimates.image import image_estimates, score_matrix
from medfsad_bench.estimates.pixel import PixelDraw, pixel_estimates
from medfsad_bench.estimates.thresholds import threshold_estimates
from medfsad_bench.metrics.resample import resampling


def estimates_of_run(
    scores: pd.DataFrame,
    pixels: Sequence[PixelDraw],
    calibration: pd.DataFrame,
    *,
    target: str,
    seed: int,
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """Compute every estimate.

    Args:
        scores: See `results.run_folder.Measurements`.
        pixels: The pixel record of each draw; empty if there is none.
        calibration: Scores of normal images, see `medfsad_bench.estimates.thresholds`; empty if there are none.
        target: The target's name.
        seed: Of the run.
        absent: What is known to be missing, and why.

    Returns:
        The part of a row that follows from stored scores, by the row's names: `metrics`, `secondary` (by pooling,
        disease, lesion size, and at thresholds), `absent` (by metric, and `interval` where no figure has one),
        `thresholds` and `pixel_mode`.
    """
    matrix = score_matrix(scores)
    resampled = resampling(matrix.groups, matrix.anomalous, replicates=REPLICATES, seed=seed)
    metrics, secondary = image_estimates(matrix, resampled, seed=seed)
    missing, pixel_mode = dict(absent) | ({"interval": resampled.lacking} if resampled.lacking else {}), None
    if pixels:
        pixel_mode = "streamed" if pixels[0].errors else "exact"
        estimates, by_size, undefined = pixel_estimates(pixels, matrix.groups, seed=seed)
        metrics, secondary, missing = metrics | estimates, secondary | by_size, missing | undefined
    rates, thresholds, without = threshold_estimates(matrix, calibration, resampled, target=target)
    return {
        "metrics": metrics,
        "secondary": secondary | rates,
        "absent": {name: why for name, why in (missing | without).items() if name not in metrics},
        "thresholds": thresholds,
        "pixel_mode": pixel_mode,
    }
