"""All estimates of a row, from what a run stored: the same call makes the row and, years later, checks it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.image import image_estimates, score_matrix
from medfsad_bench.estimates.pixel import PixelDraw, pixel_estimates
from medfsad_bench.estimates.thresholds import Threshold, threshold_estimates


@dataclass(frozen=True, slots=True)
class RunEstimates:
    """The part of a row that is computed from stored scores.

    Attributes:
        metrics: Primary estimates, by metric.
        secondary: By pooling, disease, lesion size, and at operating points.
        absent: Why an estimate is missing.
        thresholds: How thresholds without anomalies were set.
        pixel_mode: `exact` or `streamed`; None without pixel estimates.
    """

    metrics: dict[str, Estimate]
    secondary: dict[str, Estimate]
    absent: dict[str, str]
    thresholds: dict[str, Threshold]
    pixel_mode: str | None

    def fields(self) -> dict[str, Any]:
        """By the names that a row has for them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def estimates_of_run(
    scores: pd.DataFrame,
    pixels: Sequence[PixelDraw],
    calibration: pd.DataFrame,
    *,
    target: str,
    seed: int,
    absent: dict[str, str],
) -> RunEstimates:
    """Compute every estimate.

    Args:
        scores: See `results.run_folder.Measurements`.
        pixels: The pixel record of each draw; empty if there is none.
        calibration: Scores of normal images, see `medfsad_bench.estimates.thresholds`; empty if there are none.
        target: The target's name.
        seed: Of the run.
        absent: What is known to be missing, and why.
    """
    metrics, secondary = image_estimates(scores, seed=seed)
    missing = dict(absent)
    if pixels:
        groups = score_matrix(scores).groups
        estimates, by_size, undefined = pixel_estimates(pixels, groups, seed=seed)
        metrics, secondary, missing = metrics | estimates, secondary | by_size, missing | undefined
    at_thresholds = threshold_estimates(scores, calibration, target=target, seed=seed)
    return RunEstimates(
        metrics,
        secondary | dict(at_thresholds.estimates),
        {name: why for name, why in (missing | dict(at_thresholds.absent)).items() if name not in metrics},
        dict(at_thresholds.thresholds),
        pixels[0].mode if pixels else None,
    )
