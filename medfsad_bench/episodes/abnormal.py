"""Abnormal supports, for methods that declare them: anomalous test images whose groups are no queries.

The candidates are one image each of up to 16 groups, never more than a quarter of the target's anomalous groups. They
are the same for every K and draw, and all test images of their groups are left out of the queries, so that queries are
the same for every K and draw, too. Which images these are depends on the set's name and their ids alone.
"""

import numpy as np
from jaxtyping import Int64

from medfsad_bench.store import Dataset
from medfsad_bench.store.ranking import rank

GROUPS = 16
_RULE = "medfsad/abnormal"


def abnormal_candidates(dataset: Dataset) -> Int64[np.ndarray, " m"]:
    """Rows of the images that may be abnormal supports, one per group, best rank first."""
    anomalous = dataset.table.iloc[dataset.anomalous_test]
    ranks = [rank(_RULE, dataset.name, id_) for id_ in anomalous["id"].astype(str)]
    first = anomalous.assign(row=anomalous.index, rank=ranks).sort_values("rank").drop_duplicates("group")
    return first["row"].to_numpy(np.int64)[: min(GROUPS, len(first) // 4)]


def ranked_in_draw(dataset: Dataset, rows: Int64[np.ndarray, " m"], draw: int) -> Int64[np.ndarray, " m"]:
    """The candidates in a draw's own order."""
    ids = dict(zip(rows.tolist(), dataset.table["id"].iloc[rows].astype(str), strict=True))
    return np.array(sorted(rows.tolist(), key=lambda row: rank(_RULE, f"draw {draw}", ids[row])), np.int64)
