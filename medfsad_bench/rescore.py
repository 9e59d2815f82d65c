"""A run's figures once more, from what it stored: no method, no image and no torch."""

from pathlib import Path

import numpy as np

from medfsad_bench.pixel_record import figures_of_draws, read_pixels
from medfsad_bench.results import Figure, Row, figures_by_disease, image_figures, read_scores


def rescored(folder: Path, row: Row) -> dict[str, Figure]:
    """All figures of the run in `folder`, by name, recomputed; a sound row holds the same, bit for bit.

    Raises:
        ResultsError: If scores or pixel record are missing or damaged.
    """
    scores = read_scores(folder / "scores.parquet")
    primary, secondary = image_figures(scores, seed=row.seed)
    figures = primary | secondary | figures_by_disease(scores)
    draws = read_pixels(folder / "pixels.npz")
    if draws:
        groups = scores.loc[scores["draw"] == scores["draw"].min(), "group"].to_numpy(str)
        numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        figures |= figures_of_draws(draws, numbers, seed=row.seed)
    return figures
