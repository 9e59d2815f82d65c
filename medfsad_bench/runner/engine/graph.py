"""A sweep as a small graph: which features are made, what is trained, what is scored, and what depends on what.

A *feature task* is a network × a target: it puts the features of the target's images into the store on disk, where all
cells find them. A *training task* is a method × sources × K in training × seed, whichever cells need it; a *scoring
task* is a cell with all its draws. Under the protocol `published` a training is scored while it goes on, so it is part
of its cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from medfsad_bench.method import Backbone
from medfsad_bench.results.identity import digest_of
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.training import shared_weights, training_is_over

SWEEPS = ".sweeps"  # in the folder of runs: what sweeps want, and the logs of feature tasks

Kind = Literal["features", "training", "scoring"]


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker does in one go.

    Attributes:
        id: The run id of a scoring, the training id of a training.
        kind: Which of the three.
        cell: Whose scoring it is, or one of those that share the training or the features.
        needs: Ids of the tasks that have to be done before.
    """

    id: str
    kind: Kind
    cell: Cell
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        if self.kind == "features":
            return f"{self.cell.config.features.name} · {self.cell.target.name}: features"
        return self.cell.title if self.kind == "scoring" else f"{self.cell.title}: training"

    @property
    def folder(self) -> Path:
        """Where its log and its progress lie, and the result of a scoring or a training."""
        if self.kind == "training":
            return shared_weights(self.cell)
        runs = self.cell.options.runs
        return runs / self.id if self.kind == "scoring" else runs / SWEEPS / self.id

    @property
    def done(self) -> bool:
        """Whether its result is there already; never of features, as only the store knows, which looks fast enough."""
        if self.kind == "features":
            return False
        return training_is_over(self.folder) if self.kind == "training" else RunFolder(self.folder).finished


def tasks_of(cells: Sequence[Cell], *, features: bool = True) -> list[Task]:
    """All tasks of some cells, each once and right before the first cell that needs it.

    Args:
        cells: What is to be scored.
        features: Whether there is a store that feature tasks can fill.
    """
    tasks: dict[str, Task] = {}
    features_id = cache(_features_id)  # thousands of cells share a few networks and targets
    for cell in cells:
        needs: tuple[str, ...] = ()
        if features and isinstance(network := getattr(cell.config, "features", None), Backbone):
            shared = features_id(network, cell.target.attributes["content_digest"])
            first = tasks.setdefault(shared, Task(shared, "features", cell))
            if cell.shots > first.cell.shots:  # more shots are more supports, and the fewer are among them
                tasks[shared] = replace(first, cell=cell)
            needs += (shared,)
        if cell.trains and cell.options.checkpoint is None and cell.options.protocol == "strict":
            tasks.setdefault(cell.training_id, Task(cell.training_id, "training", cell))
            needs += (cell.training_id,)
        tasks.setdefault(cell.run_id, Task(cell.run_id, "scoring", cell, needs))
    return list(tasks.values())


def unfinished(tasks: Sequence[Task]) -> list[Task]:
    """Those whose result is wanted and not there: features and trainings only where a cell still waits for them."""
    scorings = [task for task in tasks if task.kind == "scoring" and not task.done]
    needed = {id_ for task in scorings for id_ in task.needs}
    open_ids = {task.id for task in scorings} | {task.id for task in tasks if task.id in needed and not task.done}
    return [task for task in tasks if task.id in open_ids]


def _features_id(network: Backbone, content_digest: str) -> str:
    return f"features-{digest_of([repr(replace(network, stages=())), content_digest])[:12]}"
