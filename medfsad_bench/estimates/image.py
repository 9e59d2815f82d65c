"""Image-level figures of a run, from its scores alone: overall, by pooling, by disease, lesion size or any column."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate
from medfsad_bench.metrics import image
from medfsad_bench.metrics.interval import AREAS, interval_of, replicate_all

IMAGE_METRICS: Mapping[str, tuple[str, Callable[..., float]]] = {
    "image_auroc": ("auroc", image.auroc_score),
    "image_average_precision": ("average_precision", image.average_precision_score),
    "image_fpr_at_tpr95": ("fpr_at_tpr95", image.fpr_at_tpr_error),
    "image_sensitivity_at_specificity95": (
        "sensitivity_at_specificity95",
        image.sensitivity_at_specificity_score,
    ),
    "image_f1_max_oracle": ("f1_max_oracle", image.f1_max_score),
    "image_balanced_accuracy_max_oracle": ("balanced_accuracy_max_oracle", image.balanced_accuracy_max_score),
}
POOLINGS = {"score_mean": "pooled_mean", "score_top1": "pooled_top1"}  # secondary figures, from the same maps
LESION_SHARES = (0.01, 0.05)  # of an image's area: where a small lesion ends, and where a large one begins


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a run as a matrix, with what is known of each query.

    Attributes:
        matrix: One row a draw, one column a query.
        anomalous: Label of a query.
        groups: Group number of a query.
        queries: One line a query, the other columns of the scores.
    """

    matrix: Float64[np.ndarray, "draws n"]
    anomalous: Bool[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    queries: pd.DataFrame


def scored(scores: pd.DataFrame, column: str = "score") -> Scored:
    """The matrix of a run's scores.

    Raises:
        MetricError: If a query lacks the score of a draw.
    """
    wide = scores.pivot_table(index="index", columns="draw", values=column, aggfunc="first", dropna=False)
    if wide.isna().to_numpy().any():
        missing = int(wide.isna().to_numpy().sum())
        raise MetricError(f"{missing} scores are missing or not a number; expected one per query and draw.")
    queries = scores.drop_duplicates("index").set_index("index").loc[wide.index]
    groups = np.unique(queries["group"].to_numpy(str), return_inverse=True)[1].astype(np.int64)
    return Scored(wide.to_numpy(np.float64).T, queries["anomalous"].to_numpy(bool), groups, queries)


def image_estimates(scores: pd.DataFrame, *, seed: int = 0) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Image-level figures of a run, primary and secondary, each with its interval.

    Args:
        scores: As `medfsad_bench.results.row.read_scores` gives them.
        seed: Of the bootstrap.

    Raises:
        MetricError: If a class is missing, a score isn't finite, a draw lacks queries, or groups are too few.
    """
    primary = _figures(scored(scores), tuple(IMAGE_METRICS), seed=seed)
    secondary = {
        f"image_auroc_{POOLINGS[column]}": _figures(scored(scores, column), ("image_auroc",), seed=seed)["image_auroc"]
        for column in POOLINGS
        if column in scores.columns
    }
    secondary |= estimates_by(scores, "disease", seed=seed, one_too=False)
    if "lesion_share" in scores.columns:
        sizes = lesion_groups(scores["lesion_share"].to_numpy(float))
        secondary |= estimates_by(scores.assign(lesion=sizes), "lesion", seed=seed)
    return primary, secondary


def estimates_by(scores: pd.DataFrame, column: str, *, seed: int = 0, one_too: bool = True) -> dict[str, Estimate]:
    """AUROC of each value of a column, as `image_auroc[<column> <value>]`.

    Where normal images have values of the column too (a site, a scanner), the images of a value are compared with each
    other. Where they don't (a disease, a lesion's size), its anomalous images are compared with all normal ones. A
    value that lacks a class is left out. Groups too few for an interval leave the figure without one.

    Args:
        scores: As `medfsad_bench.results.row.read_scores` gives them.
        column: Of `scores`.
        seed: Of the bootstrap.
        one_too: Whether a column with a single value is worth a figure.

    Raises:
        ResultsError: If there is no such column.
    """
    if column not in scores.columns:
        raise ResultsError(
            f"The scores have no column {column!r}; there are {', '.join(sorted(scores.columns))}. "
            "Other columns come by --table."
        )
    values = scores[column].fillna("").astype(str)
    normal = ~scores["anomalous"].to_numpy(bool)
    own = _shared(values[normal], values[~normal])
    names = sorted(set(values[~normal]) - {""})
    if len(names) < 2 and not one_too:
        return {}
    found = {}
    for name in names:
        part = scores[(values == name) | normal] if not own else scores[values == name]
        if part["anomalous"].nunique() == 2:
            found[f"image_auroc[{column} {name}]"] = _or_without_interval(scored(part), seed=seed)
    return found


def lesion_groups(shares: Float64[np.ndarray, " n"]) -> list[str]:
    """Name of the size group of an image's lesions, of their share of its area; empty where there is none."""
    from medfsad_bench.estimates.lesion import size_names

    names = size_names(LESION_SHARES)
    places = np.searchsorted(LESION_SHARES, shares, side="right")
    return [names[place] if share > 0 else "" for share, place in zip(shares, places, strict=True)]


def _shared(normal: pd.Series, anomalous: pd.Series) -> bool:
    """Whether the values of anomalous images occur among the normal ones."""
    return bool((set(normal) - {""}) & (set(anomalous) - {""}))


def _figures(found: Scored, names: tuple[str, ...], *, seed: int) -> dict[str, Estimate]:
    known = {IMAGE_METRICS[name][0]: name for name in names}
    tables = replicate_all(
        found.matrix, found.anomalous, found.groups, metrics=tuple(known), replicates=REPLICATES, seed=seed
    )
    figures = {}
    for metric, name in known.items():
        values = np.array([IMAGE_METRICS[name][1](draw, found.anomalous) for draw in found.matrix])
        interval = interval_of(tables[metric], area=metric in AREAS)
        least = 0.5 if metric == "balanced_accuracy_max_oracle" else 0.0  # flagging nothing has one half
        figures[name] = mean_estimate(values, (max(interval.low, least), interval.high))
    return figures


def _or_without_interval(found: Scored, *, seed: int) -> Estimate:
    try:
        return _figures(found, ("image_auroc",), seed=seed)["image_auroc"]
    except MetricError:
        return mean_estimate(np.array([image.auroc_score(draw, found.anomalous) for draw in found.matrix]))
