"""From options to an engine, and a sweep's progress on the terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medfsad_bench.cli.cells import said_of
from medfsad_bench.cli.console import Bars, err, progress_bars
from medfsad_bench.cli.options import EngineName
from medfsad_bench.errors import MethodError
from medfsad_bench.processes import cpus_each, sigterm_raises

if TYPE_CHECKING:
    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.engine.graph import Task
    from medfsad_bench.runner.engine.jobs import Workplace
    from medfsad_bench.runner.engine.sweep import Engine
    from medfsad_bench.runner.engine.worker import Outcome
    from medfsad_bench.runner.feature_store import FeatureStore
    from medfsad_bench.runner.plan import Cell

_NOTE_S = 1.0  # between two looks at what runs


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the user asked for of the engine; None where nothing was said."""

    engine: EngineName = "local"
    jobs: int | None = None
    address: str | None = None
    cpus_per_task: int | None = None
    gpus_per_task: float | None = None
    memory_per_task: float | None = None
    ship_data: bool = False
    retries: int = 3

    @property
    def in_this_process(self) -> bool:
        """Whether no engine was asked for."""
        return self.engine == "local" and self.jobs is None

    def check(self) -> None:
        """Refuse what the engine would not use.

        Raises:
            MethodError: Naming the first such option.
        """
        of_ray = {
            "--address": self.address is not None,
            "--gpus-per-task": self.gpus_per_task is not None,
            "--memory-per-task": self.memory_per_task is not None,
            "--ship-data": self.ship_data,
        }
        given = [name for name, is_given in of_ray.items() if is_given]
        if self.engine == "local" and given:
            raise MethodError(
                f"{given[0]} goes with --engine ray, and the engine is local. Give both, or leave it out."
            )
        if self.engine == "ray" and self.jobs is not None:
            raise MethodError(
                "--jobs goes with --engine local. On Ray as many tasks are done at once as there is room for; say with "
                "--cpus-per-task, --gpus-per-task and --memory-per-task how much each is to have."
            )
        if self.in_this_process and self.cpus_per_task is not None:
            raise MethodError(
                "--cpus-per-task goes with --jobs or --engine ray: it is what each of several tasks is given. For one "
                "process at a time set OMP_NUM_THREADS."
            )

    @property
    def threads(self) -> int:
        """CPU threads of each task."""
        if self.cpus_per_task is not None:
            return self.cpus_per_task
        return 1 if self.engine == "ray" else cpus_each(self.jobs or 1)


def run_sweep(
    plan: "Sequence[Cell]",
    options: EngineOptions,
    device: str,
    store: "FeatureStore | None",
    track: Sequence[str] = (),
) -> "tuple[list[Row], list[str]]":
    """Run cells on an engine; returns their rows, and a paragraph for each that failed.

    Each worker writes for the programs that `track` names, see `runner.tracking`.
    """
    from medfsad_bench.runner.engine.cells import done_on, rows_of
    from medfsad_bench.runner.engine.graph import tasks_of, unfinished

    tasks = tasks_of(plan, features=store is not None)
    open_tasks = unfinished(tasks)
    if before := sum(task.kind == "scoring" and task.done for task in tasks):
        err.print(f"{before} of {len(plan)} cells were done before")
    failures: list[str] = []
    if open_tasks:
        with _engine(plan, options, device, store, track) as (engine, words), sigterm_raises(KeyboardInterrupt):
            words += f", {options.threads} thread{'s' if options.threads > 1 else ''} each"
            err.print(f"{len(open_tasks)} tasks on {words}")
            with progress_bars() as bars:
                watcher = _Watcher(bars, len(open_tasks))
                failures = done_on(engine, words, open_tasks, watcher, retries=options.retries)
    return rows_of(plan), failures


def _engine(
    plan: "Sequence[Cell]", options: EngineOptions, device: str, store: "FeatureStore | None", track: Sequence[str]
) -> "AbstractContextManager[tuple[Engine, str]]":
    """An engine for the time of the block, and what it is in words."""
    from medfsad_bench.runner.engine.cells import pool_of, workplace_of

    jobs = options.jobs or 1
    workplace = workplace_of(plan, device=device, threads=options.threads, jobs=jobs, store=store, track=track)
    return _ray_engine(plan, options, workplace) if options.engine == "ray" else pool_of(jobs, workplace)


@contextmanager
def _ray_engine(
    plan: "Sequence[Cell]", options: EngineOptions, workplace: "Workplace"
) -> "Iterator[tuple[Engine, str]]":
    from medfsad_bench.cluster import cluster_facts, joined
    from medfsad_bench.runner.engine.nodes import FilesOfSweep, Resources

    sets = {set_.path: set_ for cell in plan for set_ in (cell.target, *cell.sources, *cell.references)}
    digests = {path: str(dataset.attributes["content_digest"]) for path, dataset in sets.items()}
    files = FilesOfSweep(digests, plan[0].options.runs)
    resources = Resources(options.threads, options.gpus_per_task, options.memory_per_task)
    with joined(options.address):
        from medfsad_bench.runner.engine.ray_engine import RayEngine

        engine = RayEngine(resources, workplace, files, ship_data=options.ship_data)
        with err.status("asking every node whether it sees the same files"):
            notes = engine.check_nodes()
        for note in notes:
            err.print(note, style="yellow", markup=False)
        yield engine, f"a Ray cluster of {cluster_facts().in_words}"


class _Watcher:
    """Shows one bar for the whole sweep, a line for each task that ends, and what is running beside the bar."""

    def __init__(self, bars: Bars, total: int) -> None:
        self._bars, self._total = bars, total
        self._done = self._failed = 0
        self._looked = 0.0
        bars.start("sweep", total)

    def ended(self, task: "Task", outcome: "Outcome") -> None:
        from medfsad_bench.results.run_folder import RunFolder

        self._done += 1
        title = f"[{self._done}/{self._total}] {task.title}"
        if outcome.state != "done":
            self._failed += 1
            err.print(f"{title}: failed: {outcome.message}", style="red", markup=False)
        elif task.kind != "scoring":
            err.print(f"{title}: done", markup=False)
        else:
            for line in said_of(task.cell, title, RunFolder(task.folder).row(), done_before=False):
                err.print(line, markup=False)

    def again(self, task: "Task", outcome: "Outcome") -> None:
        err.print(f"{task.title}: begun again: {outcome.message}", style="yellow", markup=False)

    def look(self, running: "Sequence[Task]", waiting: int) -> None:
        from medfsad_bench.runner.engine.status import running_note

        if time.monotonic() - self._looked < _NOTE_S:
            return
        self._looked = time.monotonic()
        notes = ((task.title, running_note(task.folder)) for task in running)
        first = next((f"; {title}: {note}" for title, note in notes if note), "")
        failed = f", {self._failed} failed" if self._failed else ""
        self._bars.at(f"{len(running)} with workers, {waiting} waiting{failed}{first}", self._done, self._total)
