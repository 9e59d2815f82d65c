"""Cells, and methods that misbehave, for the tests of engines: importable by workers, as installed methods are."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Method, RunContext, Scorer, Scores
from medfsad_bench.registry import method_info
from medfsad_bench.results.row import Row
from medfsad_bench.runner.plan import Cell, RunOptions, sweep_cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store.prepared import prepared_sets

TRAINING = {"steps": 6, "size_px": 64, "batch_size": 4, "train_shots": 2}  # of d24fad
CLOCKS = ("pretrain_s", "adapt_s", "score_ms_per_image", "peak_memory_mb", "date")


@dataclass(frozen=True)
class TroubleConfig:
    """What happens at the first support.

    Attributes:
        kind: `none`, `refuses`, `raises`, `dies` (once), `told to end` (once) or `slow`.
        mark: File that says that it has happened.
    """

    kind: str = "none"
    mark: str = ""


class Trouble(Method):
    """Distance to the mean support, and what the config says."""

    def __init__(self, config: TroubleConfig) -> None:
        self.config = config

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        self._make_trouble()
        mean = support.mean(0)
        return lambda images: Scores(image=(images - mean).abs().flatten(1).mean(1))

    def _make_trouble(self) -> None:
        kind, mark = self.config.kind, Path(self.config.mark)
        if kind == "refuses":
            raise MethodError("Found a support that it doesn't take. Expected another one.")
        if kind == "raises":
            raise ZeroDivisionError("a bug")
        if kind == "slow":
            mark.touch()
            time.sleep(0.5)
        if kind in ("dies", "told to end") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL if kind == "dies" else signal.SIGTERM)
            time.sleep(5)


TROUBLE = MethodInfo("trouble", "1", TroubleConfig, Trouble, "", "", "Apache-2.0", presets={"quick": {}})


def sweep_of(
    data: Path,
    runs: Path,
    *,
    targets: tuple[str, ...] = ("ward_b",),
    seeds: tuple[int, ...] = (0,),
    shots: tuple[int, ...] = (2,),
) -> list[Cell]:
    """One method that trains, one with a network, one with neither; by default on the set whose figures cost least."""
    sets = prepared_sets(data)
    wanted = [dataset for dataset in sets if dataset.name in targets]
    cells = []
    for name, settings in (("d24fad", TRAINING), ("mean_distance", {}), ("pixel_distance", {})):
        variants = [RunOptions(runs, draws=2, preset="quick", settings=settings, seed=seed) for seed in seeds]
        cells += sweep_cells([method_info(name)], wanted, sets, shots, variants)
    return cells


def troubled(data: Path, runs: Path, kind: str, mark: Path | str = "", *, target: str = "ward_b") -> Cell:
    """A cell whose method makes trouble."""
    sets = prepared_sets(data)
    wanted = [dataset for dataset in sets if dataset.name == target]
    options = RunOptions(runs, draws=2, preset="quick", settings={"kind": kind, "mark": str(mark)})
    return sweep_cells([TROUBLE], wanted, sets, [2], [options])[0]


def rows_of_local_run(cells: list[Cell]) -> dict[str, Row]:
    """Rows by run id, made in this process with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runner = Runner("cpu")
        runner.announce(cells)
        return {cell.run_id: runner.run(cell)[0] for cell in cells}
    finally:
        torch.set_num_threads(threads)


def without_clocks(row: Row) -> dict[str, object]:
    """A row without what no two runs share."""
    return {name: value for name, value in row.dump().items() if name not in CLOCKS}
