"""Abnormal supports, for methods that declare them: anomalous test images whose groups are no queries.

The candidates are one image each of up to 16 groups, never more than a quarter of the target's anomalous groups. They
are the same for every K and draw, and all test images of their groups are left out of the queries, so that queries are
the same for every K and draw, too. Which images these are depends on the set's name and their ids alone.
"""

import numpy as np
from jaxtyping import Int64

from medfsad_bench.store import Dataset
from medfsad_bench.store.ranking import best_of_groups, rank

GROUPS = 16
_RULE = "medfsad/abnormal"


def abnormal_candidates(dataset: Dataset) -> Int64[np.ndarray, " m"]:
    """Rows of the images that may be abnormal supports, one per group, best rank first."""
    candidates = list(best_of_groups(dataset, _RULE, dataset.name).values())
    return np.array(candidates[: min(GROUPS, len(candidates) // 4)], np.int64)


def ranked_in_draw(dataset: Dataset, rows: Int64[np.ndarray, " m"], draw: int) -> Int64[np.ndarray, " m"]:
    """The candidates in a draw's own order."""
    ids = dataset.table["id"]
    return np.array(sorted(rows.tolist(), key=lambda row: rank(_RULE, f"draw {draw}", str(ids[row]))), np.int64)
