"""A task as it travels: a cell without the content of its prepared sets, which its worker opens itself.

Sets travel as paths and installed methods as names, so a job is small, and what a worker makes of it depends on the
files and packages that the worker sees. It tells by the run id whether those are the same: see `unpacked`.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medfsad_bench.errors import ResultsError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Backbone
from medfsad_bench.registry import installed_names, method_info
from medfsad_bench.runner.engine.graph import Kind, Task
from medfsad_bench.runner.plan import Cell
from medfsad_bench.store import Dataset
from medfsad_bench.store.proof import prove


@dataclass(frozen=True, slots=True)
class Workplace:
    """What is the same for all tasks of a sweep.

    Attributes:
        cwd: Folder that relative paths start from.
        device: As `--device` names it.
        threads: Of the CPU, for each task.
        cache_bytes: Room for features in a worker's memory.
        store: Folder of features on disk; None keeps them in memory alone.
        store_bytes: Room there.
        backbones: The networks of all cells, so that one pass serves them; see `Runner.announce`.
        track: Programs that are written for, see `runner.tracking`.
        runs: Folder of runs.
    """

    cwd: Path
    device: str
    threads: int
    cache_bytes: int
    store: Path | None = None
    store_bytes: int = 0
    backbones: tuple[Backbone, ...] = ()
    track: tuple[str, ...] = ()
    runs: Path = Path()


@dataclass(frozen=True, slots=True)
class Job:
    """A task and where it is done.

    Attributes:
        run_id: Of the cell.
        kind: Of the task.
        folder: Of the task.
        cell: Pickled, see `packed`.
        workplace: Of the sweep.
    """

    run_id: str
    kind: Kind
    folder: Path
    cell: bytes
    workplace: Workplace


def packed(task: Task, workplace: Workplace) -> Job:
    """A task made ready to travel."""
    stream = io.BytesIO()
    _Packer(stream).dump(replace(task.cell))  # without what the cell has found out, its run id above all
    return Job(task.cell.run_id, task.kind, task.folder, stream.getvalue(), workplace)


def unpacked(job: Job, located: Callable[[Path], Path]) -> Cell:
    """The cell, with every set proven that it would be made from.

    Args:
        job: As it came.
        located: Where a prepared file lies on this machine.

    Raises:
        StoreError: If a file isn't there, or isn't what `prepare` wrote.
        ResultsError: If files, packages or methods here would make another run than the one that was planned.
    """
    cell: Cell = replace(_Unpacker(io.BytesIO(job.cell), located).load(), benchmark="")
    for dataset in {dataset.path: dataset for dataset in (cell.target, *cell.sources, *cell.references)}.values():
        prove(dataset)
    if cell.run_id != job.run_id:
        raise ResultsError(
            f"{cell.title}: this worker would make the run {cell.run_id}, planned was {job.run_id}. It sees other "
            "prepared files, weights or versions of a method than the command that planned the sweep. Give all "
            "machines the same, on a shared file system, or ship small sets with --ship-data."
        )
    return cell


class _Packer(pickle.Pickler):
    def persistent_id(self, content: Any) -> tuple[str, str] | None:
        if isinstance(content, Dataset):
            return "dataset", str(content.path)
        if isinstance(content, MethodInfo) and content.name.partition(":")[0] in installed_names():
            return "method", content.name
        return None


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, located: Callable[[Path], Path]) -> None:
        super().__init__(stream)
        self._located, self._opened = located, dict[str, Dataset]()

    def persistent_load(self, persistent_id: tuple[str, str]) -> Any:
        kind, name = persistent_id
        if kind == "method":
            return method_info(name)
        if name not in self._opened:
            self._opened[name] = Dataset(self._located(Path(name)))
        return self._opened[name]
