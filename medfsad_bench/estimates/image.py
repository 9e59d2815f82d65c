"""Image-level estimates of a run, from its scores alone: overall, by pooling, by disease, lesion size or any column."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate, metric_estimate
from medfsad_bench.estimates.lesion import size_names
from medfsad_bench.metrics.interval import replicate_all
from medfsad_bench.metrics.metric import IMAGE_AUROC, IMAGE_METRICS, Metric
from medfsad_bench.metrics.resample import group_keys

POOLINGS = {"score_mean": "pooled_mean", "score_top1": "pooled_top1"}  # secondary, from the same maps
LESION_SHARES = (0.01, 0.05)  # of an image's area: where a small lesion ends, and where a large one begins


@dataclass(frozen=True, slots=True)
class ScoreMatrix:
    """Scores of a run as a matrix, with what is known of each query.

    Attributes:
        scores: One row per draw, one column per query.
        anomalous: Label of a query.
        groups: Key of a query's group, see `metrics.resample.group_keys`: equal names have equal keys in all targets.
        queries: One line per query, the other columns of the scores.
    """

    scores: Float64[np.ndarray, "draws n"]
    anomalous: Bool[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    queries: pd.DataFrame


def image_estimates(
    matrix: ScoreMatrix, scores: pd.DataFrame, *, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Image-level estimates of a run, primary and secondary, each with its interval if the groups allow one.

    Args:
        matrix: The scores, as `score_matrix` makes it of them.
        scores: See `results.run_folder.Measurements`.
        seed: Of the bootstrap.

    Raises:
        MetricError: If a class is missing, a score isn't finite, or a draw lacks queries.
    """
    primary = matrix_estimates(matrix, tuple(IMAGE_METRICS.values()), seed=seed)
    secondary = {}
    for column, pooling in POOLINGS.items():
        if column in scores.columns:
            pooled = replace(matrix, scores=score_matrix(scores, column).scores)
            estimates = matrix_estimates(pooled, (IMAGE_AUROC,), seed=seed)
            secondary[f"{IMAGE_AUROC.name}_{pooling}"] = estimates[IMAGE_AUROC.name]
    secondary |= estimates_by(scores, "disease", seed=seed, single_value=False)
    if "lesion_share" in scores.columns:
        shares = scores["lesion_share"].to_numpy(float)
        sizes = pd.cut(shares, [-np.inf, *LESION_SHARES, np.inf], right=False, labels=size_names(LESION_SHARES))
        secondary |= estimates_by(scores.assign(lesion=np.where(shares > 0, sizes, "")), "lesion", seed=seed)
    return primary, secondary


def matrix_estimates(matrix: ScoreMatrix, metrics: Sequence[Metric], *, seed: int = 0) -> dict[str, Estimate]:
    """Image-level metrics by name, with intervals, or without where the groups are too few.

    Raises:
        MetricError: If a class is missing or a score isn't finite.
    """
    try:
        tables = replicate_all(
            matrix.scores, matrix.anomalous, matrix.groups, metrics=metrics, replicates=REPLICATES, seed=seed
        )
    except MetricError:  # what is wrong with the scores themselves is said again here
        return {
            metric.name: mean_estimate(np.array([metric.score(draw, matrix.anomalous) for draw in matrix.scores]))
            for metric in metrics
        }
    return {metric.name: metric_estimate(metric, tables[metric.name]) for metric in metrics}


def estimates_by(scores: pd.DataFrame, column: str, *, seed: int = 0, single_value: bool = True) -> dict[str, Estimate]:
    """AUROC of each value of a column, as `image_auroc[<column> <value>]`.

    Where normal images have values of the column too (a site, a scanner), the images of a value are compared with each
    other. Where they don't (a disease, a lesion's size), its anomalous images are compared with all normal ones. A
    value that lacks a class is left out. Groups too few for an interval leave the estimate without one.

    Args:
        scores: See `results.run_folder.Measurements`.
        column: Of `scores`.
        seed: Of the bootstrap.
        single_value: Whether a column with a single value is worth an estimate.

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
    names = sorted(set(values[~normal]) - {""})
    if len(names) < 2 and not single_value:
        return {}
    with_normals = not set(values[normal]).isdisjoint(names)
    estimates = {}
    for name in names:
        part = scores[values == name] if with_normals else scores[(values == name) | normal]
        if part["anomalous"].nunique() == 2:
            (estimate,) = matrix_estimates(score_matrix(part), (IMAGE_AUROC,), seed=seed).values()
            estimates[f"{IMAGE_AUROC.name}[{column} {name}]"] = estimate
    return estimates


def score_matrix(scores: pd.DataFrame, column: str = "score") -> ScoreMatrix:
    """The matrix of a run's scores.

    Raises:
        MetricError: If a query lacks the score of a draw.
    """
    wide = scores.pivot_table(index="index", columns="draw", values=column, aggfunc="first", dropna=False)
    if wide.isna().to_numpy().any():
        missing = int(wide.isna().to_numpy().sum())
        raise MetricError(f"{missing} scores are missing or not a number; expected one per query and draw.")
    queries = scores.drop_duplicates("index").set_index("index").loc[wide.index]
    anomalous = queries["anomalous"].to_numpy(bool)
    return ScoreMatrix(wide.to_numpy(np.float64).T, anomalous, group_keys(queries["group"].astype(str)), queries)
