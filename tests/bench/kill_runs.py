"""Random kills: every run is broken by SIGKILL again and again, and has to end in the scores of one that never was.

    python tests/bench/kill_runs.py [--kills 50] [--seed 0]

Three cells on small phantoms: one that trains, one whose features are cached, and one that keeps its maps. Each kill
hits a process of its own at a random moment between its start and the end of what an undisturbed run takes; the next
process goes on in the same folder. Exit 1 if a score, a map or a figure differs, or if anything is left of the way.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import Silent, write_own_folder  # noqa: E402

from medfsad_bench.curation.stage import PrepareOptions, prepare  # noqa: E402
from medfsad_bench.registry import method_info  # noqa: E402
from medfsad_bench.results.run_folder import RunFolder  # noqa: E402
from medfsad_bench.runner.plan import Cell, RunOptions, cells  # noqa: E402
from medfsad_bench.runner.runner import Runner  # noqa: E402
from medfsad_bench.store.prepared import own_sets  # noqa: E402

DRAWS = 3
CASES: dict[str, dict[str, object]] = {  # settings by method
    "d24fad": {"steps": 6, "size_px": 64, "batch_size": 4, "train_shots": 2},
    "patchcore": {},
    "pixel_distance": {},
}


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, faults, killed = np.random.default_rng(arguments.seed), list[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = _prepared(folder)
        expected, durations = {}, {}
        for method in CASES:
            started = time.monotonic()
            _finish(_cell(data, folder / "whole", method))
            durations[method] = time.monotonic() - started
            expected[method] = _folder(_cell(data, folder / "whole", method))
        attempt = 0
        while killed < arguments.kills and not faults:
            for method in CASES:
                cell = _cell(data, folder / f"runs{attempt}", method)
                while killed < arguments.kills and not _folder(cell).finished:
                    killed += _killed(cell, after_s=rng.uniform(0, durations[method]))
                _finish(cell)
                faults += [f"{method}: {fault}" for fault in _faults(_folder(cell), expected[method])]
            attempt += 1
    for fault in faults:
        print(fault)
    print(f"{killed} kills, {attempt * len(CASES)} runs, {len(faults)} faults")
    raise SystemExit(1 if faults else 0)


def _prepared(folder: Path) -> Path:
    for name, seed in (("ward_a", 1), ("ward_b", 2)):
        write_own_folder(folder / "raw" / name, seed=seed, masks=False)
    prepare(folder / "raw", PrepareOptions(folder / "data", size_px=64), watcher=Silent())
    return folder / "data"


def _cell(data: Path, runs: Path, method: str) -> Cell:
    sets = own_sets(data)
    save_maps = method == "pixel_distance"
    options = RunOptions(runs, draws=DRAWS, preset="quick", settings=CASES[method], save_maps=save_maps)
    return cells(method_info(method), sets[:1], sets, [2], options)[0]


def _folder(cell: Cell) -> RunFolder:
    return RunFolder(cell.options.runs / cell.run_id)


def _finish(cell: Cell) -> None:
    """Run a cell to its end in a process of its own, as every run is."""
    _, status = os.waitpid(_started(cell), 0)
    if status:
        raise SystemExit(f"{cell.info.name}: a run that nobody disturbed ended with {status}")


def _killed(cell: Cell, *, after_s: float) -> bool:
    """Start a run and kill it; whether it still ran."""
    process = _started(cell)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def _started(cell: Cell) -> int:
    """A fork of this process, which has all modules and never computed anything; its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        Runner("cpu").run(cell)
        code = 0
    finally:
        os._exit(code)


def _faults(folder: RunFolder, expected: RunFolder) -> list[str]:
    faults = []
    for name in ("scores", "calibration", "reruns"):
        try:
            pd.testing.assert_frame_equal(getattr(folder, name)(), getattr(expected, name)(), check_exact=True)
        except AssertionError as error:
            faults.append(f"{name}: {error}")
    if expected.has_maps(0):
        rows = expected.scores().query("draw == 0")["index"].to_numpy()
        if any(not np.array_equal(folder.maps(draw, rows), expected.maps(draw, rows)) for draw in range(DRAWS)):
            faults.append("maps")
    if folder.row().metrics != expected.row().metrics:
        faults.append("figures")
    left = {path.name for path in folder.path.rglob("*")} ^ {path.name for path in expected.path.rglob("*")}
    hidden = [path.name for path in folder.path.parent.rglob(".*") if path.name != ".lock"]
    return faults + [f"left or missing: {name}" for name in sorted(left) + hidden]


if __name__ == "__main__":
    main()
