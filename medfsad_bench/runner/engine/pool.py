"""Tasks on a pool of processes of this machine.

Each job slot is a process of its own, so that whoever kills one, as the system does when memory runs out, ends one task
and disturbs no other.
"""

import os
import signal
from collections.abc import Collection, Hashable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import cast

from medfsad_bench.processes import end_with_parent, process_number
from medfsad_bench.runner.engine.graph import Task
from medfsad_bench.runner.engine.jobs import Workplace, packed
from medfsad_bench.runner.engine.worker import Outcome, perform

_PATIENCE_S = 10.0  # for a worker that was told to end

_LOST = (
    "its process was ended from outside; the usual reason is that memory ran out. What was finished of it is kept: run "
    "the same command again, with fewer --jobs if it happens again"
)


class PoolEngine:
    """An engine of `jobs` processes; see `sweep.Engine`. To be closed."""

    def __init__(self, jobs: int, workplace: Workplace) -> None:
        self._workplace = workplace
        self._idle = [_Worker() for _ in range(jobs)]
        self._busy: dict[Hashable, _Worker] = {}
        self.capacity = jobs

    def submit(self, task: Task) -> Hashable:
        """Hand a task to a process that has nothing to do."""
        worker = self._idle.pop()
        future = worker.executor.submit(perform, packed(task, self._workplace))
        self._busy[future] = worker
        return future

    def ended(self, handles: Collection[Hashable], timeout_s: float) -> Collection[Hashable]:
        """Those that have ended; waits for the first, but no longer than that."""
        return wait(cast(Collection["Future[Outcome]"], handles), timeout_s, FIRST_COMPLETED).done

    def outcome(self, handle: Hashable) -> Outcome:
        """How a task ended that has; a new process stands in for one that is gone."""
        worker = self._busy.pop(handle)
        try:
            outcome = cast("Future[Outcome]", handle).result()
        except BrokenProcessPool:
            outcome = Outcome("lost", message=_LOST)
        if outcome.state != "done" and outcome.state != "failed":
            worker.end()
            worker = _Worker()
        self._idle.append(worker)
        return outcome

    def close(self) -> None:
        """End all processes; what they were doing is handed back."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.tell(signal.SIGTERM)
        wait(cast(Collection["Future[Outcome]"], self._busy), _PATIENCE_S)
        for worker in workers:
            worker.end()


class _Worker:
    """One process."""

    def __init__(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["medfsad_bench.runner.engine.worker"])
        self.executor = ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent)
        self._process = self.executor.submit(process_number)

    def tell(self, number: signal.Signals) -> None:
        """Send the process a signal, if it lives."""
        with suppress(BrokenProcessPool, ProcessLookupError, TimeoutError):
            os.kill(self._process.result(_PATIENCE_S), number)

    def end(self) -> None:
        """End the process at once."""
        self.tell(signal.SIGKILL)
        self.executor.shutdown(cancel_futures=True)
