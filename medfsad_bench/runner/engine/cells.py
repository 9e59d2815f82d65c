"""From cells to rows on an engine: what the command line and a Python program share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medfsad_bench.processes import cpus_each
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.engine.graph import Task, tasks_of, unfinished
from medfsad_bench.runner.engine.jobs import Workplace
from medfsad_bench.runner.engine.pool import PoolEngine
from medfsad_bench.runner.engine.status import recorded
from medfsad_bench.runner.engine.sweep import RETRIES, Engine, Watcher, sweep
from medfsad_bench.runner.engine.worker import Outcome
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.features import CACHE_BYTES
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import announced


def run_on_processes(
    plan: Sequence[Cell], jobs: int, *, device: str, store: FeatureStore | None
) -> tuple[list[Row], list[str]]:
    """The rows of cells, made by several processes of this machine, and a paragraph for each task that failed.

    Args:
        plan: Cells that exist.
        jobs: How many processes; they share out the CPUs.
        device: As `--device` names it.
        store: Where features lie on disk; None keeps them in each process's memory alone.
    """
    workplace = workplace_of(plan, device=device, threads=cpus_each(jobs), jobs=jobs, store=store)
    open_tasks = unfinished(tasks_of(plan, features=store is not None))
    failures: list[str] = []
    if open_tasks:
        with pool_of(jobs, workplace) as (engine, words):
            failures = done_on(engine, words, open_tasks, Unwatched())
    return rows_of(plan), failures


def done_on(
    engine: Engine, words: str, tasks: Sequence[Task], watcher: Watcher, *, retries: int = RETRIES
) -> list[str]:
    """Do tasks, as `medfsad status` then tells; returns a paragraph for each that failed.

    Args:
        engine: Does them.
        words: What the engine is.
        tasks: All that are open.
        watcher: Is told.
        retries: How often a task is handed over again whose worker was lost.
    """
    with recorded(tasks[0].cell.options.runs, tasks, words):
        outcomes = sweep(tasks, engine, watcher, retries=retries)
    titles = {task.id: task.title for task in tasks}
    return [f"{titles[id_]}: {end.message}" for id_, end in outcomes.items() if end.state != "done"]


def rows_of(plan: Sequence[Cell]) -> list[Row]:
    """The rows of those cells that are finished."""
    folders = [RunFolder(cell.options.runs / cell.run_id) for cell in plan]
    return [folder.row() for folder in folders if folder.finished]


def workplace_of(
    plan: Sequence[Cell],
    *,
    device: str,
    threads: int,
    jobs: int,
    store: FeatureStore | None,
    track: Sequence[str] = (),
) -> Workplace:
    """What is the same for all tasks of a plan.

    Args:
        plan: Cells.
        device: As `--device` names it.
        threads: CPU threads of each task.
        jobs: Tasks that share this machine's memory for features.
        store: Where features lie on disk.
        track: Programs that are written for, see `runner.tracking`.
    """
    folder, store_bytes = (store.folder, store.budget_bytes) if store else (None, 0)
    networks, room = tuple(dict.fromkeys(announced(plan))), CACHE_BYTES // jobs
    runs = plan[0].options.runs
    return Workplace(Path.cwd(), device, threads, room, folder, store_bytes, networks, tuple(track), runs)


@contextmanager
def pool_of(jobs: int, workplace: Workplace) -> Iterator[tuple[Engine, str]]:
    """Processes of this machine for the time of the block, and what they are in words."""
    pool = PoolEngine(jobs, workplace)
    try:
        yield pool, f"{jobs} process{'es' if jobs != 1 else ''} of this machine"
    finally:
        pool.close()


class Unwatched:
    """Hears nothing."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """A task has ended."""

    def again(self, task: Task, outcome: Outcome) -> None:
        """A task is begun again."""

    def look(self, running: Sequence[Task], waiting: int) -> None:
        """What is running."""
