"""All figures of a row, from what a run stored: the same call makes the row and, years later, checks it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medfsad_bench.estimates.estimate import Figure
from medfsad_bench.estimates.image import image_figures, scored
from medfsad_bench.estimates.pixel import PixelDraw, figures_of_draws
from medfsad_bench.estimates.thresholds import OperatingPoint, operating_figures


@dataclass(frozen=True, slots=True)
class RowFigures:
    """The part of a row that is computed from stored scores.

    Attributes:
        metrics: Primary figures.
        secondary: By pooling, disease, lesion size, and at operating points.
        absent: Why a figure is missing.
        operating: How thresholds without anomalies were set.
        pixel_mode: `exact` or `streamed`; None without pixel figures.
    """

    metrics: dict[str, Figure]
    secondary: dict[str, Figure]
    absent: dict[str, str]
    operating: dict[str, OperatingPoint]
    pixel_mode: str | None

    def fields(self) -> dict[str, Any]:
        """By the names that a row has for them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def row_figures(
    scores: pd.DataFrame,
    pixels: Sequence[PixelDraw],
    calibration: pd.DataFrame,
    *,
    target: str,
    seed: int,
    absent: dict[str, str],
) -> RowFigures:
    """Compute every figure.

    Args:
        scores: As `medfsad_bench.results.row.read_scores` gives them.
        pixels: The pixel record, one a draw; empty if there is none.
        calibration: Scores of normal images, see `medfsad_bench.estimates.thresholds`; empty if there are none.
        target: The target's name.
        seed: Of the run.
        absent: What is known to be missing, and why.
    """
    metrics, secondary = image_figures(scores, seed=seed)
    missing = dict(absent)
    if pixels:
        groups = scored(scores).groups
        found, by_size, lacking = figures_of_draws(pixels, groups, seed=seed)
        metrics, secondary, missing = metrics | found, secondary | by_size, missing | lacking
    operating = operating_figures(scores, calibration, target=target, seed=seed)
    return RowFigures(
        metrics,
        secondary | dict(operating.figures),
        {name: why for name, why in (missing | dict(operating.absent)).items() if name not in metrics},
        dict(operating.points),
        pixels[0].mode if pixels else None,
    )
