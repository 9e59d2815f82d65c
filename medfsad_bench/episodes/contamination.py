"""Contaminated supports: of the K support images, M are anomalies that nobody noticed.

    reserve      a part of the anomalous test groups that lends its images to supports: none of its images is a query
    contaminant  per draw M anomalous images of the reserve, one a group; they take the places of the last M supports

The reserve hangs on the set alone, not on draw, K or M. So every draw has the same queries, every point of a robustness
curve too, and a clean run is paired with it once the reserve's images are left out of its queries. Support and queries
stay disjoint by group.

Both are rules, not luck: rank(group) = the least sha256("medfsad/contaminated/1:" + set + ":" + id) of its anomalous
images, the first groups are the reserve; in draw d images are ranked by sha256("medfsad/contaminated/1:" + set + ":" +
d + ":" + id). Contaminants are nested: those of M are the first M.
"""

import hashlib

import numpy as np
from jaxtyping import Int64

from medfsad_bench.store import Dataset

RULE = "1"  # rises with every change that moves a contaminant or a query
SHARE, MOST = 4, 10  # the reserve is a quarter of the anomalous test groups, at least one and at most ten
_LEAST_OF_CLASS, _LEAST = 2, 4  # groups that an interval needs


def query_rows(dataset: Dataset, contaminated: int) -> Int64[np.ndarray, " n"]:
    """Rows of the test images that are queries: all of them, or those outside the reserve if supports are contaminated.

    Args:
        dataset: The target.
        contaminated: M; 0 for clean supports.
    """
    rows = dataset.indices("test")
    if not contaminated:
        return rows
    held = dataset.table["group"].iloc[rows].isin(reserved_groups(dataset)).to_numpy()
    return rows[~held]


def support_rows(dataset: Dataset, draw: int, shots: int, contaminated: int) -> Int64[np.ndarray, " k"]:
    """Rows of the K supports of a draw: the first K - M of the draw, then M contaminants.

    Args:
        dataset: The target.
        draw: Which draw.
        shots: K.
        contaminated: M; 0 for clean supports.
    """
    clean = dataset.episodes[draw][: shots - contaminated]
    return np.concatenate([clean, contaminants(dataset, draw)[:contaminated]]) if contaminated else clean


def contaminants(dataset: Dataset, draw: int) -> Int64[np.ndarray, " m"]:
    """Rows of a draw's anomalous images by rank, one of each reserved group."""
    held = reserved_groups(dataset)
    rows = _anomalous(dataset)
    ids, groups = (dataset.table[name].iloc[rows].to_numpy(str) for name in ("id", "group"))
    order = sorted(range(len(rows)), key=lambda place: _rank(f"{dataset.name}:{draw}:{ids[place]}"))
    first: dict[str, int] = {}
    for place in order:
        if groups[place] in held:
            first.setdefault(str(groups[place]), int(rows[place]))
    return np.array(list(first.values()), np.int64)


def reserved_groups(dataset: Dataset) -> tuple[str, ...]:
    """Groups of anomalous test images that lend contaminants, best rank first."""
    rows = _anomalous(dataset)
    ids, groups = (dataset.table[name].iloc[rows].to_numpy(str) for name in ("id", "group"))
    order = sorted(range(len(rows)), key=lambda place: _rank(f"{dataset.name}:{ids[place]}"))
    ranked = list(dict.fromkeys(str(groups[place]) for place in order))
    return tuple(ranked[: min(MOST, max(1, len(ranked) // SHARE))])


def why_absent(dataset: Dataset, shots: int, contaminated: int) -> str:
    """Why supports of this target can't be contaminated so; empty if they can, or are clean."""
    if not contaminated:
        return ""
    if contaminated >= shots:
        return f"{contaminated} of {shots} supports an anomaly leaves no normal one"
    held = len(reserved_groups(dataset))
    if held < contaminated:
        return f"{dataset.name} lends {held} anomalous groups to supports, fewer than {contaminated}"
    left = dataset.table.iloc[query_rows(dataset, contaminated)]
    per_class = [int(left.loc[left["label"] == label, "group"].nunique()) for label in (0, 1)]
    if min(per_class) < _LEAST_OF_CLASS or left["group"].nunique() < _LEAST:
        return (
            f"without the groups that contaminate supports {dataset.name} has {per_class[0]} normal and "
            f"{per_class[1]} anomalous test groups, too few for an interval"
        )
    return ""


def _anomalous(dataset: Dataset) -> Int64[np.ndarray, " n"]:
    rows = dataset.indices("test")
    return rows[dataset.table["label"].to_numpy(bool)[rows]]


def _rank(text: str) -> str:
    return hashlib.sha256(f"medfsad/contaminated/{RULE}:{text}".encode()).hexdigest()
