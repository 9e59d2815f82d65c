"""What a sweep wants, written down when it begins, and how far it is, read off the folder of runs by anybody.

<runs>/.sweeps/<time>-<random>.json    who runs it on what, and the tasks that were open at its beginning
"""

import json
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_json
from medfsad_bench.results.progress import is_being_made, progress_of
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.results.storage import writing
from medfsad_bench.runner.engine.graph import SWEEPS, Task
from medfsad_bench.runner.training import training_is_over

State = Literal["done", "running", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How far a task is.

    Attributes:
        id: Its run id or training id.
        title: What people call it.
        state: That of its folder.
        note: Stage, steps and place of one that is running; the reason of one that failed.
    """

    id: str
    title: str
    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """How far a sweep is.

    Attributes:
        engine: In words.
        host: Where its command runs.
        started: Time, UTC.
        ended: Time, UTC; empty while it goes on, or if it was killed.
        tasks: All that were open at its beginning.
        left_s: Estimate of the time left, from the rate so far; None before the first task is done.
    """

    engine: str
    host: str
    started: str
    ended: str
    tasks: tuple[TaskStatus, ...]
    left_s: float | None

    def count(self, state: State) -> int:
        """How many tasks are in a state."""
        return sum(task.state == state for task in self.tasks)


@contextmanager
def recorded(runs: Path, tasks: Sequence[Task], engine: str) -> Iterator[None]:
    """Write down a sweep for the time of the block, and at its end that it has ended.

    Args:
        runs: Folder of runs.
        tasks: That are open.
        engine: In words.

    Raises:
        ResultsError: If it can't be written.
    """
    path = runs / SWEEPS / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.json"
    listed = [{"id": task.id, "title": task.title, "folder": str(task.folder.relative_to(runs))} for task in tasks]
    record = {"engine": engine, "host": platform.node(), "started": _now(), "ended": "", "tasks": listed}
    with writing(path.parent):
        write_json(path, record)
    try:
        yield
    finally:
        with suppress(OSError):
            write_json(path, record | {"ended": _now()})


def sweeps_in(runs: Path) -> list[SweepStatus]:
    """How far the sweeps of a folder are, the newest first.

    Raises:
        ResultsError: If the folder is missing, or a record can't be read.
    """
    if not runs.is_dir():
        raise ResultsError(f"{runs} is no folder. Expected a folder of runs; `medfsad run` writes them.")
    return [_status(runs, path) for path in sorted((runs / SWEEPS).glob("[0-9]*.json"), reverse=True)]


def as_json(sweep: SweepStatus) -> dict[str, Any]:
    """A status for other programs."""
    return asdict(sweep)


def running_note(folder: Path) -> str:
    """How far what is being made in a folder is; empty if nothing tells."""
    progress = progress_of(folder)
    if not {"stage", "done", "total", "host"} <= progress.keys():
        return ""
    return f"{progress['stage']} {progress['done']}/{progress['total']} on {progress['host']}"


def _status(runs: Path, path: Path) -> SweepStatus:
    try:
        record = json.loads(path.read_text("utf-8"))
        tasks = tuple(_task_status(runs, entry, record["started"]) for entry in record["tasks"])
        started = datetime.fromisoformat(record["started"])
        facts = {name: str(record[name]) for name in ("engine", "host", "started", "ended")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: the record of a sweep can't be read ({error}). Remove it.") from error
    done = sum(task.state == "done" for task in tasks)
    spent = time.time() - started.timestamp()
    left = spent / done * (len(tasks) - done) if done else None
    return SweepStatus(**facts, tasks=tasks, left_s=left)


def _task_status(runs: Path, entry: Mapping[str, str], started: str) -> TaskStatus:
    folder, title = runs / entry["folder"], entry["title"]
    if RunFolder(folder).finished or training_is_over(folder):
        return TaskStatus(entry["id"], title, "done")
    if is_being_made(folder):
        return TaskStatus(entry["id"], title, "running", running_note(folder))
    last = RunFolder(folder).last_event()
    if last.get("event") in ("done", "failed") and str(last.get("time")) >= started:
        return TaskStatus(entry["id"], title, last["event"], str(last.get("error", "")))
    return TaskStatus(entry["id"], title, "waiting")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
