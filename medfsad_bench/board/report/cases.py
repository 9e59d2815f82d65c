"""The queries that a reader wants to see first: anomalies that look normal to a method, and normals that it flags."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from medfsad_bench.estimates.image import ScoreMatrix

EACH = 4  # queries of each kind


@dataclass(frozen=True, slots=True)
class Case:
    """A query whose rank is on the wrong side.

    Attributes:
        id: Of its image.
        group: Of its patient, slide, eye pair.
        disease: Or `normal`.
        rank: Mean over draws: 0 is the least anomalous query, 1 the most.
    """

    id: str
    group: str
    disease: str
    rank: float


def mean_ranks(matrix: ScoreMatrix) -> Float[np.ndarray, " n"]:
    """Each query's rank among all, from 0 to 1, mean over draws: draws differ in the scale of their scores."""
    ranks = rankdata(matrix.scores, axis=1) - 1
    return np.asarray(ranks.mean(axis=0) / max(matrix.scores.shape[1] - 1, 1))


def worst_misses(matrix: ScoreMatrix) -> list[Case]:
    """The anomalous queries of the lowest ranks, one per group."""
    return _first_of_groups(_cases(matrix, anomalous=True).sort_values("rank", kind="stable"))


def worst_false_alarms(matrix: ScoreMatrix) -> list[Case]:
    """The normal queries of the highest ranks, one per group."""
    return _first_of_groups(_cases(matrix, anomalous=False).sort_values("rank", ascending=False, kind="stable"))


def _cases(matrix: ScoreMatrix, *, anomalous: bool) -> pd.DataFrame:
    queries = matrix.queries.assign(rank=mean_ranks(matrix))
    return queries[matrix.anomalous == anomalous]


def _first_of_groups(queries: pd.DataFrame) -> list[Case]:
    chosen = queries.drop_duplicates("group").head(EACH)
    return [
        Case(str(row["id"]), str(row["group"]), str(row["disease"]) if row["anomalous"] else "normal", row["rank"])
        for row in chosen.to_dict("records")
    ]
