"""A sweep as a small graph: what is trained, what is scored, and what depends on what.

A *training task* is a method × sources × K in training × seed, whichever cells need it; a *scoring task* is a cell with
all its draws. Under the protocol `published` a training is scored while it goes on, so it is part of its cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.training import shared_weights, training_is_over

Kind = Literal["training", "scoring"]


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker does in one go.

    Attributes:
        id: The run id of a scoring, the training id of a training.
        kind: Which of the two.
        cell: Whose scoring it is, or the first of those that share the training.
        needs: Ids of the tasks that have to be done before.
    """

    id: str
    kind: Kind
    cell: Cell
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        return self.cell.title if self.kind == "scoring" else f"{self.cell.title}: training"

    @property
    def folder(self) -> Path:
        """Where its result, its log and its progress lie."""
        return shared_weights(self.cell) if self.kind == "training" else self.cell.options.runs / self.id

    @property
    def done(self) -> bool:
        """Whether its result is there already."""
        return training_is_over(self.folder) if self.kind == "training" else RunFolder(self.folder).finished


def tasks_of(cells: Sequence[Cell]) -> list[Task]:
    """All tasks of some cells, each once: a training right before the first cell that needs it."""
    tasks: dict[str, Task] = {}
    for cell in cells:
        needs: tuple[str, ...] = ()
        if cell.trains and cell.options.checkpoint is None and cell.options.protocol == "strict":
            needs = (cell.training_id,)
            tasks.setdefault(cell.training_id, Task(cell.training_id, "training", cell))
        tasks.setdefault(cell.run_id, Task(cell.run_id, "scoring", cell, needs))
    return list(tasks.values())


def unfinished(tasks: Sequence[Task]) -> list[Task]:
    """Those whose result is wanted and not there: a training only where a cell still waits for it."""
    scorings = [task for task in tasks if task.kind == "scoring" and not task.done]
    needed = {id_ for task in scorings for id_ in task.needs}
    trainings = {task.id for task in tasks if task.id in needed and not task.done}
    open_ids = trainings | {task.id for task in scorings}
    return [task for task in tasks if task.id in open_ids]
