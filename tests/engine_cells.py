"""Cells, and methods that misbehave, for the tests of engines: importable by workers, as installed methods are."""

import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Mapping
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
HOARD_BYTES = 5 << 30
SMALL_FILE = 60_000  # bytes: more than a file of a run, less than features
CLOCKS = ("pretrain_s", "adapt_s", "score_ms_per_image", "peak_memory_mb", "date")


@dataclass(frozen=True)
class TroubleConfig:
    """What happens at the first support.

    Attributes:
        kind: `none`, `refuses`, `raises`, `dies` (once), `told to end` (once), `slow`, `allocates` (more than the
            system gives it), `hoards` (`HOARD_BYTES`, until somebody ends it), or `little room` (from then on no file
            of the process grows beyond `SMALL_FILE`).
        mark: File that says that it has happened; of `hoards` with a line for each time.
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
        if kind == "hoards":
            with mark.open("a") as times:
                times.write(f"{os.getpid()}\n")
            _hoard()
        if kind == "little room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        if kind == "allocates":
            _allocate_too_much()
        if kind in ("dies", "told to end") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL if kind == "dies" else signal.SIGTERM)
            time.sleep(5)


def _allocate_too_much() -> None:
    """Ask the system for 2 GiB when it gives this process no more than half of one."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), before[1]))
    try:
        torch.empty(1 << 31, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _hoard() -> None:
    """Take memory and write to it, piece by piece, so that whoever watches can step in."""
    pieces: list[bytes] = []
    while sum(len(piece) for piece in pieces) < HOARD_BYTES:
        pieces.append(b"\1" * (64 << 20))
        time.sleep(0.02)


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


def one_of_each_class(data: Path, runs: Path) -> list[Cell]:
    """A method of every class: how it comes by its numbers, and what of them it keeps for others."""
    program = shlex.join([sys.executable, str(Path(__file__).with_name("brightness_model.py"))])
    elsewhere = {"command": program, "model_version": "1"}
    methods: tuple[tuple[str, Mapping[str, object]], ...] = (
        ("d24fad", TRAINING),  # trained on the other set
        ("stfpm", {"trained_on": "support", "support_steps": 2, "batch_size": 2, "size_px": 64}),  # on the supports
        ("mean_distance", {}),  # a frozen network
        ("mean_distance", {"backbone": "random:resnet18"}),  # one without weights of its own
        ("patchcore", {"size_px": 64}),  # distances that a cache keeps, and maps
        ("pixel_distance", {}),  # no network
        ("external:brightness", elsewhere),  # a process of its own
    )
    sets = prepared_sets(data)
    cells = []
    for name, settings in methods:
        target = "ward_a" if name == "patchcore" else "ward_b"  # `ward_a` has masks, which make figures cost more
        wanted = [dataset for dataset in sets if dataset.name == target]
        options = RunOptions(runs, draws=2, preset="quick", settings=settings)
        cells += sweep_cells([method_info(name)], wanted, sets, (2,), [options])
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
