"""What choosing settings costs beside one setting: a method's own grid, and its default, evaluated on one set.

CPU time of one thread, each with an empty cache, so that the network's passes are in both. Goal: a grid of 24 settings
costs less than 4 times one. By default multistage, late_fusion and pooled_and_patch, whose grids have 24 settings, and
anomalydino, whose grid has 8 and turns the support in half of them; any other method with a grid can be named.

    PYTHONPATH=tests python tests/bench/bench_tune.py [METHOD …]
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from conftest import Silent, write_own_folder

from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.plan import RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.tuning import Settings, choose, settings_grid
from medfsad_bench.store.prepared import prepared_sets

METHODS = ("multistage", "late_fusion", "pooled_and_patch", "anomalydino")
SIZE_PX, SHOTS, GOAL = 256, 4, 4


def main() -> None:
    """Print the ratio of each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--images", type=int, default=100, help="test images of the set")
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for seed, name in enumerate(("ward_a", "ward_b")):
            half = options.images // 2
            write_own_folder(root / "raw" / name, seed=seed, masks=False, normal=2 * half, anomalous=half)
        prepare(root / "raw", PrepareOptions(root / "data", size_px=SIZE_PX), watcher=Silent())
        for name in options.methods:
            info = method_info(name)
            grid = settings_grid(info, preset="quick", settings={}, grid={})
            default = configure(info, preset="quick")
            default_only: list[Settings] = [{field: getattr(default, field) for field in info.grid}]
            spent(name, default_only, root, "warm", 1)  # loads weights and code
            single = spent(name, default_only, root, "one", options.draws)
            whole = spent(name, grid, root, "grid", options.draws)
            goal = f" (goal: below {GOAL})" if len(grid) == 24 else ""
            print(f"{name}: {len(grid)} settings cost {whole / single:.1f} × one{goal}", flush=True)


def spent(name: str, grid: Sequence[Settings], root: Path, runs: str, draws: int) -> float:
    """CPU seconds of a choice."""
    sets = prepared_sets(root / "data")
    options = RunOptions(root / name / runs, draws=draws, preset="quick")
    (cell,) = cells(method_info(name), sets[:1], sets, [SHOTS], options)
    began = time.process_time()
    choose(cell, grid, sets, Runner("cpu"), lambda *_: None)
    return time.process_time() - began


if __name__ == "__main__":
    main()
