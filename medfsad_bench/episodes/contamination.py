"""Contaminated supports: of the K support images, M are anomalies that nobody noticed.

    reserve      a part of the anomalous test groups that lends its images to supports: none of its images is a query
    contaminant  per draw M anomalous images of the reserve, one per group; they take the places of the last M supports

The reserve depends on the set alone, not on draw, K or M. So every draw has the same queries, every point of a
robustness curve too, and a clean run is paired with it once the reserve's images are left out of its queries.

Both are rules, not luck: rank(group) = the least sha256("medfsad/contaminated/1:" + set + ":" + id) of its anomalous
images, the first groups are the reserve; in draw d images are ranked by sha256("medfsad/contaminated/1:" + set + ":" +
d + ":" + id). Contaminants are nested: those of M are the first M.
"""

import numpy as np
from jaxtyping import Int64

from medfsad_bench.store import Dataset
from medfsad_bench.store.ranking import best_of_groups

RULE = "1"  # rises with every change that moves a contaminant or a query
_RANKED_BY = f"medfsad/contaminated/{RULE}"
SHARE, MOST = 4, 10  # the reserve is a quarter of the anomalous test groups, at least one and at most ten


def reserved_groups(dataset: Dataset) -> tuple[str, ...]:
    """Groups of anomalous test images that lend contaminants, best rank first."""
    ranked = list(best_of_groups(dataset, _RANKED_BY, dataset.name))
    return tuple(ranked[: min(MOST, max(1, len(ranked) // SHARE))])


def contaminants(dataset: Dataset, draw: int) -> Int64[np.ndarray, " m"]:
    """Rows of a draw's anomalous images by rank, one of each reserved group."""
    lending = set(reserved_groups(dataset))
    first = best_of_groups(dataset, _RANKED_BY, dataset.name, str(draw))
    return np.array([row for group, row in first.items() if group in lending], np.int64)
