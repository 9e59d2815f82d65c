"""The episodes of a target at K shots: one set of queries, and the supports of every draw."""

from functools import cached_property

import numpy as np
from jaxtyping import Int64

from medfsad_bench.episodes.abnormal import abnormal_candidates, ranked_in_draw
from medfsad_bench.episodes.contamination import contaminants, reserved_groups
from medfsad_bench.store import Dataset

_LEAST_OF_CLASS, _LEAST = 2, 4  # groups that an interval needs


class Episodes:
    """Rows of a prepared set by the part that they take. Support and queries are disjoint by group.

    Args:
        dataset: The target.
        shots: K.
        contaminated: M of the K supports are anomalies that nobody noticed; see `episodes.contamination`.
        abnormal: Whether the method is shown K abnormal supports beside the normal ones; see `episodes.abnormal`.

    Attributes:
        dataset: The target.
        shots: K.
        contaminated: M.
        abnormal: As given.
    """

    def __init__(self, dataset: Dataset, shots: int, *, contaminated: int = 0, abnormal: bool = False) -> None:
        self.dataset, self.shots = dataset, shots
        self.contaminated, self.abnormal = contaminated, abnormal

    @cached_property
    def queries(self) -> Int64[np.ndarray, " n"]:
        """Test images that are scored, in ascending order, the same for every draw, K and M > 0."""
        return np.setdiff1d(self.dataset.indices("test"), self.reserved)

    @cached_property
    def reserved(self) -> Int64[np.ndarray, " m"]:
        """Test images that are no queries, since their groups lend images to supports."""
        test = self.dataset.indices("test")
        groups = self.dataset.table["group"].iloc[test]
        lending = set(reserved_groups(self.dataset)) if self.contaminated else set()
        if self.abnormal:
            lending |= set(self.dataset.table["group"].iloc[self._abnormal_candidates])
        return test[groups.isin(lending).to_numpy()]

    def support(self, draw: int) -> Int64[np.ndarray, " k"]:
        """The K supports of a draw: the first K - M of the stored draw, then M contaminants."""
        clean = self.dataset.episodes[draw][: self.shots - self.contaminated]
        if not self.contaminated:
            return clean
        return np.concatenate([clean, contaminants(self.dataset, draw)[: self.contaminated]])

    def abnormal_support(self, draw: int) -> Int64[np.ndarray, " k"]:
        """The abnormal supports of a draw; none unless they were asked for. Nested, as normal supports are."""
        if not self.abnormal:
            return np.zeros(0, np.int64)
        return ranked_in_draw(self.dataset, self._abnormal_candidates, draw)[: self.shots]

    def why_absent(self, draws: int) -> str:
        """Why there are no such episodes in `draws` draws; empty if there are."""
        name, stored = self.dataset.name, self.dataset.episodes
        fewest = min(map(len, stored), default=0)
        if fewest < self.shots:
            return f"{name} has {fewest} training groups, fewer than {self.shots} shots"
        if draws > len(stored):
            return f"{name} holds {len(stored)} support draws, fewer than {draws}"
        if self.abnormal and len(self._abnormal_candidates) < self.shots:
            return (
                f"{name} can spare {len(self._abnormal_candidates)} anomalous groups for abnormal supports, fewer "
                f"than {self.shots} shots"
            )
        return self._why_not_contaminated() if self.contaminated else ""

    @cached_property
    def _abnormal_candidates(self) -> Int64[np.ndarray, " m"]:
        return abnormal_candidates(self.dataset)

    def _why_not_contaminated(self) -> str:
        name = self.dataset.name
        if self.abnormal:
            return "contaminated supports say nothing beside abnormal ones, which the method takes"
        if self.contaminated >= self.shots:
            return f"{self.contaminated} of {self.shots} supports an anomaly leaves no normal one"
        lending = len(reserved_groups(self.dataset))
        if lending < self.contaminated:
            return f"{name} lends {lending} anomalous groups to supports, fewer than {self.contaminated}"
        queries = self.dataset.table.iloc[self.queries]
        normal, anomalous = (int(queries.loc[queries["label"] == label, "group"].nunique()) for label in (0, 1))
        if min(normal, anomalous) < _LEAST_OF_CLASS or queries["group"].nunique() < _LEAST:
            return (
                f"without the groups that contaminate supports {name} has {normal} normal and {anomalous} anomalous "
                "test groups, too few for an interval"
            )
        return ""
