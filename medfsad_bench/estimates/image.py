"""Image-level estimates of a run, from its scores alone: overall, by pooling, by disease, lesion size or any column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.estimates.lesion import size_names
from medfsad_bench.metrics.curve import Ranking, rankings
from medfsad_bench.metrics.interval import replicates_of
from medfsad_bench.metrics.metric import IMAGE_AUROC, IMAGE_METRICS, Metric
from medfsad_bench.metrics.resample import Resampling, group_keys, resampling

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
        poolings: The same scores by other poolings of the maps, by the names in `POOLINGS`; empty without maps.
    """

    scores: Float64[np.ndarray, "draws n"]
    anomalous: Bool[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    queries: pd.DataFrame
    poolings: Mapping[str, Float64[np.ndarray, "draws n"]] = field(default_factory=dict)


def score_matrix(scores: pd.DataFrame) -> ScoreMatrix:
    """The matrix of a run's scores.

    Args:
        scores: See `results.run_folder.Measurements`.

    Raises:
        MetricError: If a query lacks the score of a draw.
    """
    columns = ["score", *(column for column in POOLINGS if column in scores.columns)]
    indices, first, query = np.unique(scores["index"].to_numpy(), return_index=True, return_inverse=True)
    draws, draw = np.unique(scores["draw"].to_numpy(), return_inverse=True)
    matrices = {}
    for column in columns:
        matrix = np.full((len(draws), len(indices)), np.nan)
        matrix[draw, query] = scores[column].to_numpy(np.float64)
        if missing := int(np.isnan(matrix).sum()):
            raise MetricError(f"{missing} scores are missing or not a number; expected one per query and draw.")
        matrices[column] = matrix
    queries = scores.iloc[first].set_index("index")
    anomalous = queries["anomalous"].to_numpy(bool)
    keys = group_keys(queries["group"].astype(str))
    return ScoreMatrix(matrices.pop("score"), anomalous, keys, queries, matrices)


def image_estimates(
    matrix: ScoreMatrix, resampled: Resampling, *, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Image-level estimates of a run, primary and secondary, each with its interval if the groups allow one.

    Args:
        matrix: The scores.
        resampled: Weights of the queries, in the order of the matrix.
        seed: Of the weights of the queries of one disease or lesion size.

    Raises:
        MetricError: If a class is missing or a score isn't finite.
    """
    primary = estimates_of_scores(matrix.scores, matrix.anomalous, tuple(IMAGE_METRICS.values()), resampled)
    secondary = {}
    for column, pooled in matrix.poolings.items():
        estimates = estimates_of_scores(pooled, matrix.anomalous, (IMAGE_AUROC,), resampled)
        secondary[f"{IMAGE_AUROC.name}_{POOLINGS[column]}"] = estimates[IMAGE_AUROC.name]
    secondary |= estimates_by(matrix, "disease", seed=seed, single_value=False)
    if "lesion_share" in matrix.queries.columns:
        shares = matrix.queries["lesion_share"].to_numpy(float)
        sizes = pd.cut(shares, [-np.inf, *LESION_SHARES, np.inf], right=False, labels=size_names(LESION_SHARES))
        by_size = replace(matrix, queries=matrix.queries.assign(lesion=np.where(shares > 0, sizes, "")))
        secondary |= estimates_by(by_size, "lesion", seed=seed)
    return primary, secondary


def estimates_by(matrix: ScoreMatrix, column: str, *, seed: int = 0, single_value: bool = True) -> dict[str, Estimate]:
    """AUROC of each value of a column, as `image_auroc[<column> <value>]`.

    Where normal images have values of the column too (a site, a scanner), the images of a value are compared with each
    other. Where they don't (a disease, a lesion's size), its anomalous images are compared with all normal ones. A
    value that lacks a class is left out. Groups too few for an interval leave the estimate without one.

    Args:
        matrix: The scores.
        column: Of `matrix.queries`.
        seed: Of the bootstrap.
        single_value: Whether a column with a single value is worth an estimate.

    Raises:
        ResultsError: If there is no such column.
    """
    if column not in matrix.queries.columns:
        raise ResultsError(
            f"The scores have no column {column!r}; there are {', '.join(sorted(matrix.queries.columns))}. "
            "Other columns come by --table."
        )
    values = matrix.queries[column].fillna("").astype(str).to_numpy()
    normal = ~matrix.anomalous
    names = sorted(set(values[~normal]) - {""})
    if len(names) < 2 and not single_value:
        return {}
    with_normals = not set(values[normal]).isdisjoint(names)
    by_value = {}
    for name in names:
        chosen = values == name if with_normals else (values == name) | normal
        anomalous = matrix.anomalous[chosen]
        if anomalous.any() and not anomalous.all():
            resampled = resampling(matrix.groups[chosen], anomalous, replicates=REPLICATES, seed=seed)
            estimates = estimates_of_scores(matrix.scores[:, chosen], anomalous, (IMAGE_AUROC,), resampled)
            by_value[f"{IMAGE_AUROC.name}[{column} {name}]"] = estimates[IMAGE_AUROC.name]
    return by_value


def estimates_of_scores(
    scores: Float64[np.ndarray, "draws n"],
    anomalous: Bool[np.ndarray, " n"],
    metrics: Sequence[Metric],
    resampled: Resampling,
) -> dict[str, Estimate]:
    """Image-level metrics by name, with intervals if the groups allow them.

    Args:
        scores: One row per draw, one column per query.
        anomalous: Label of a query.
        metrics: Of images.
        resampled: Weights of the queries.

    Raises:
        MetricError: If a class is missing or a score isn't finite.
    """
    tables = replicates_of(rankings(scores, anomalous), metrics, resampled, weigh=Ranking.curve)
    return {metric.name: metric_estimate(metric, tables[metric.name]) for metric in metrics}
