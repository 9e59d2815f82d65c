"""What a sweep will take, from the clocks of earlier rows of the same method and preset, as like the task as may be."""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path

from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import finished_runs
from medfsad_bench.runner.engine.graph import Task


class Costs:
    """Seconds that tasks took before.

    Args:
        rows: Of earlier runs, whatever machine made them.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        seconds = defaultdict[Hashable, list[float]](list)
        for row in rows:
            if row.submitted or row.adapt_s is None or row.score_ms_per_image is None:
                continue
            queries = row.n_normal + row.n_anomalous - row.n_unscored
            scoring = row.draws * (row.adapt_s + 1e-3 * row.score_ms_per_image * queries)
            for key in _keys(row.method, row.preset, row.target, row.shots):
                seconds["scoring", key].append(scoring / row.draws)
                if row.pretrain_s:
                    seconds["training", key].append(row.pretrain_s)
        self._medians = {key: statistics.median(values) for key, values in seconds.items()}

    def seconds(self, task: Task) -> float | None:
        """What a task will take on such a machine; None where no earlier row tells."""
        cell = task.cell
        if task.kind == "features":
            return None
        for key in _keys(cell.info.name, cell.options.preset, cell.target.name, cell.shots):
            if (median := self._medians.get((task.kind, key))) is not None:
                return median * (cell.options.draws if task.kind == "scoring" else 1)
        return None


def costs_from(runs: Path) -> Costs:
    """The costs that the finished runs of a folder tell; none where there is no folder."""
    return Costs(folder.row() for folder in (finished_runs(runs) if runs.is_dir() else []))


def _keys(method: str, preset: str, target: str, shots: int) -> tuple[Hashable, ...]:
    """What a task is known by, the most alike first."""
    return ((method, preset, target, shots), (method, preset, target), (method, preset))
