"""What sweeps cost beside their tasks, on phantoms.

plan        20,000 cells (10 methods, 10 targets, 4 K, 50 seeds): goal 5 s and 300 MB beside the imports
overhead    1,000 cells that are done before, so that a task is all but the making: goal 20 ms a cell, on a pool of
            two processes and, with the extra, on Ray
two jobs    the same cells with one process and with two of one thread each: goal 1.7 times as fast, on idle cores
"""

import argparse
import importlib.util
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from conftest import Silent, write_own_folder

from medfsad_bench.cluster import joined
from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.registry import method_info
from medfsad_bench.runner.engine.cells import Unwatched
from medfsad_bench.runner.engine.cost import costs_from
from medfsad_bench.runner.engine.graph import Task, tasks_of
from medfsad_bench.runner.engine.jobs import Workplace
from medfsad_bench.runner.engine.nodes import FilesOfSweep, Resources
from medfsad_bench.runner.engine.pool import PoolEngine
from medfsad_bench.runner.engine.sweep import Engine, sweep
from medfsad_bench.runner.plan import RunOptions, sweep_cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store.prepared import prepared_sets

METHODS = (
    *("d24fad", "patchcore", "padim", "spade", "mean_distance"),
    *("multistage", "late_fusion", "subspace", "pixel_distance", "chance"),
)


def main() -> None:
    """Print each figure beside its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000, help="for the overhead")
    parser.add_argument("--only", choices=("plan", "pool", "ray", "jobs"), help="one part")
    options = parser.parse_args()
    parts: dict[str, Callable[[Path, Path], None]] = {
        "plan": plan_time,
        "pool": lambda data, runs: overhead("pool", data, runs, options.cells),
        "ray": lambda data, runs: overhead("ray", data, runs, options.cells),
        "jobs": two_jobs,
    }
    with tempfile.TemporaryDirectory() as name:
        data = prepared(Path(name))
        for part, measure in parts.items():
            if options.only in (None, part):
                measure(data, Path(name) / f"runs-{part}")


def plan_time(data: Path, runs: Path) -> None:
    """From prepared sets to tasks with their costs."""
    sets = prepared_sets(data)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    cpu = time.process_time()
    variants = [RunOptions(runs, preset="quick", seed=seed) for seed in range(50)]
    cells = [
        cell
        for cell in sweep_cells([method_info(name) for name in METHODS], sets, sets, (2, 4, 8, 16), variants)
        if not cell.absent
    ]
    costs = costs_from(runs)
    listed = [(task.id, task.title, task.done, costs.seconds(task)) for task in tasks_of(cells)]
    spent = time.monotonic() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    print(
        f"plan: {len(cells):,} cells, {len(listed):,} tasks in {spent:.1f} s, {time.process_time() - cpu:.1f} s of one "
        f"core (goal 5), {grown:.0f} MB (goal 300)"
    )


def overhead(kind: str, data: Path, runs: Path, count: int) -> None:
    """Wall time of a sweep whose cells are done, over that of its tasks."""
    target = prepared_sets(data)[:1]
    info = method_info("chance")
    variants = [RunOptions(runs, draws=1, preset="quick", seed=seed) for seed in range(count)]
    cells = sweep_cells([info], target, target, (2,), variants)
    row = Runner("cpu").run(cells[0])[0].dump()
    for cell in cells[1:]:
        folder = runs / cell.run_id
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(json.dumps(row))
    tasks = tasks_of(cells)
    Task.done = property(lambda _: False)  # type: ignore[assignment,method-assign]  # or nothing would be handed over
    if kind == "ray" and importlib.util.find_spec("ray") is None:
        print("overhead on ray: not measured, needs the extra `ray`")
        return
    with engine_of(kind, runs, 2) as engine:
        sweep(tasks[:8], engine, Unwatched())  # workers are there, and have imported what they need
        started = time.monotonic()
        outcomes = sweep(tasks, engine, Unwatched())
        spent = time.monotonic() - started
    in_tasks = sum(outcome.seconds for outcome in outcomes.values())
    each = 1e3 * (spent - in_tasks / 2) / count
    print(f"overhead on {kind}: {count:,} cells in {spent:.1f} s, {each:.1f} ms a cell beside the tasks (goal 20)")


def two_jobs(data: Path, runs: Path) -> None:
    """The same cells with one process and with two, which have their networks loaded."""
    sets = prepared_sets(data)
    infos = [method_info(name) for name in ("mean_distance", "multistage")]
    spent = {}
    for jobs in (1, 2):
        options = RunOptions(runs / str(jobs), draws=10, preset="quick")
        warm = sweep_cells(infos, sets[:1], sets[:1], (2,), [replace(options, draws=1, seed=9)])
        cells = sweep_cells(infos, sets[:6], sets[:6], (2, 4), [options])
        with engine_of("pool", runs, jobs) as engine:
            sweep(tasks_of(warm), engine, Unwatched())
            started = time.monotonic()
            outcomes = sweep(tasks_of(cells), engine, Unwatched())
            spent[jobs] = time.monotonic() - started
        assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
    print(f"two jobs: {spent[1]:.1f} s and {spent[2]:.1f} s, {spent[1] / spent[2]:.2f} times as fast (goal 1.7)")


@contextmanager
def engine_of(kind: str, runs: Path, jobs: int) -> Iterator[Engine]:
    """An engine with room for `jobs` tasks, or a Ray of this machine."""
    workplace = Workplace(Path.cwd(), "cpu", threads=1, cache_bytes=1 << 30)
    if kind == "pool":
        pool = PoolEngine(jobs, workplace)
        try:
            yield pool
        finally:
            pool.close()
        return
    with joined("local"):
        from medfsad_bench.runner.engine.ray_engine import RayEngine

        yield RayEngine(Resources(), workplace, FilesOfSweep({}, runs))


def prepared(folder: Path) -> Path:
    """Ten sets of phantoms at 64 px."""
    for number in range(10):
        write_own_folder(folder / "raw" / f"set{number}", seed=number, masks=False, normal=48, anomalous=12)
    prepare(folder / "raw", PrepareOptions(folder / "data", size_px=64), watcher=Silent())
    return folder / "data"


if __name__ == "__main__":
    main()
