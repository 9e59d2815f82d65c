"""The tasks of a sweep, one after the other or many at once, until each has ended.

A task is handed over as soon as what it needs is done, in the order of the plan. One whose worker is lost is handed
over again; one that fails fails alone, with those that need it. One that another command makes at this moment is put
off until that has ended, so that two commands on one folder share the work.
"""

import heapq
import time
from collections.abc import Collection, Hashable, Sequence
from graphlib import TopologicalSorter
from typing import Protocol, runtime_checkable

from medfsad_bench.results.progress import is_being_made
from medfsad_bench.runner.engine.graph import Task
from medfsad_bench.runner.engine.worker import Outcome

RETRIES = 3  # of a task whose worker is lost
_LOOK_S = 0.5  # how long a look at what is running waits


@runtime_checkable
class Engine(Protocol):
    """Does tasks in other processes."""

    @property
    def capacity(self) -> int:
        """How many tasks may be handed over at once."""

    def submit(self, task: Task) -> Hashable:
        """Hand a task over; returns what it is known by from now on."""

    def ended(self, handles: Collection[Hashable], timeout_s: float) -> Collection[Hashable]:
        """Those that have ended; waits for the first, but no longer than that."""

    def outcome(self, handle: Hashable) -> Outcome:
        """How a task ended that has."""


@runtime_checkable
class Watcher(Protocol):
    """Is told what happens."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """A task has its result, or never will."""

    def again(self, task: Task, outcome: Outcome) -> None:
        """A task is handed over once more."""

    def look(self, running: Sequence[Task], waiting: int) -> None:
        """Which tasks are with the engine, and how many aren't yet; several times a second."""


def sweep(tasks: Sequence[Task], engine: Engine, watcher: Watcher, *, retries: int = RETRIES) -> dict[str, Outcome]:
    """How each task ended, by its id.

    Args:
        tasks: With all that they need, as far as that isn't done.
        engine: Does them.
        watcher: Is told.
        retries: How often a task is handed over again whose worker was lost.
    """
    queue = _Queue(tasks)
    running: dict[Hashable, Task] = {}
    lost: dict[str, int] = {}
    while queue.waiting or running:
        while len(running) < engine.capacity and (task := queue.next()):
            if task.done:
                queue.end(task, Outcome("done"))
                watcher.ended(task, Outcome("done"))
            elif message := queue.why_impossible(task):
                queue.end(task, Outcome("failed", message=message))
                watcher.ended(task, queue.outcomes[task.id])
            else:
                running[engine.submit(task)] = task
        if not running:
            time.sleep(_LOOK_S if queue.waiting else 0.0)  # all that is left is made by others
        for handle in engine.ended(running, _LOOK_S) if running else ():
            task, outcome = running.pop(handle), engine.outcome(handle)
            lost[task.id] = lost.get(task.id, 0) + (outcome.state == "lost")
            if outcome.state == "handed back" or (outcome.state == "lost" and lost[task.id] <= retries):
                queue.again(task)
                watcher.again(task, outcome)
                continue
            queue.end(task, outcome)
            watcher.ended(task, outcome)
        watcher.look(list(running.values()), queue.waiting)
    return queue.outcomes


class _Queue:
    """Which task comes next: the first of the plan that needs nothing more and that nobody else makes."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = {task.id: (number, task) for number, task in enumerate(tasks)}
        self._needs = {task.id: [id_ for id_ in task.needs if id_ in self._tasks] for task in tasks}
        self._sorter = TopologicalSorter(self._needs)
        self._sorter.prepare()
        self._ready: list[tuple[int, str]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.waiting = len(tasks)

    def next(self) -> Task | None:
        """The task that comes next; None if there is none at this moment."""
        for id_ in self._sorter.get_ready():
            heapq.heappush(self._ready, (self._tasks[id_][0], id_))
        put_off, chosen = [], None
        while self._ready and chosen is None:
            number, id_ = heapq.heappop(self._ready)
            task = self._tasks[id_][1]
            if is_being_made(task.folder) and not task.done:
                put_off.append((number, id_))
            else:
                chosen = task
                self.waiting -= 1
        for entry in put_off:
            heapq.heappush(self._ready, entry)
        return chosen

    def again(self, task: Task) -> None:
        """Take a task back."""
        heapq.heappush(self._ready, (self._tasks[task.id][0], task.id))
        self.waiting += 1

    def end(self, task: Task, outcome: Outcome) -> None:
        """Note how a task ended; what needs it may come next."""
        self.outcomes[task.id] = outcome
        self._sorter.done(task.id)

    def why_impossible(self, task: Task) -> str:
        """Why a task can't be done whatever the engine does; empty if it can."""
        for id_ in self._needs[task.id]:
            if self.outcomes[id_].state != "done":
                return f"needs what failed ({self._tasks[id_][1].title}): {self.outcomes[id_].message}"
        return ""
