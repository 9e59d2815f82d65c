"""What a worker does with a job: settle once, make the task's result, say how it ended."""

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from medfsad_bench.errors import MedfsadError, ResultsError
from medfsad_bench.processes import sigterm_raises
from medfsad_bench.results.progress import Progress, output_kept
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.engine.jobs import Job, Workplace, unpacked
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.tracking import trackers
from medfsad_bench.runner.training import train


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes:
        state: `lost` says that the worker ended without a word, `handed back` that it was told to end.
        seconds: What the task itself took.
        message: One paragraph; empty if the task is done.
        host: Where it was done.
    """

    state: Literal["done", "failed", "lost", "handed back"]
    seconds: float = 0.0
    message: str = ""
    host: str = ""


def perform(job: Job, located: Callable[[Path], Path] = lambda path: path) -> Outcome:
    """Make the result of a job, or say in one paragraph why it can't be made; what is finished of it is kept.

    A worker that is told to end (SIGTERM, as on a preempted node) hands the job back: the last epoch and the last draw
    that ended are on disk, and whoever takes it up goes on from there.

    Args:
        job: What to make.
        located: Where a prepared file lies on this machine.
    """
    started = time.monotonic()

    def ended(state: Literal["done", "failed", "handed back"], message: str = "") -> Outcome:
        return Outcome(state, time.monotonic() - started, message, platform.node())

    try:
        with sigterm_raises(_HandedBackError):
            runner = _settled(job.workplace)
            with output_kept(job.folder) as log:
                message = _message_of(lambda: _make(job, runner, located), log)
    except _HandedBackError:
        return ended("handed back", "the worker was told to end")
    except MedfsadError as error:
        message = str(error)
    except OSError as error:
        message = f"{job.folder}: can't be written ({error.strerror or error}). Make room, or name another --runs."
    if not message:
        return ended("done")
    with suppress(MedfsadError, OSError):
        RunFolder(job.folder).log("failed", error=message)
    return ended("failed", message)


def _make(job: Job, runner: Runner, located: Callable[[Path], Path]) -> None:
    cell = unpacked(job, located)
    progress = Progress(job.folder)
    try:
        if job.kind == "features":
            folder = RunFolder(job.folder)
            with folder.lock(), opened(cell, runner.device, runner.cache, progress):
                folder.log("done")  # to open a cell is to have its features
        elif job.kind == "training":
            try:
                with opened(cell, runner.device, runner.cache, progress, runner.callback) as run:
                    train(run)
            finally:
                runner.callback.on_left(cell)
        else:
            runner.progress = progress
            runner.run(cell)
    finally:
        progress.end()


def _message_of(make: Callable[[], None], log: Path) -> str:
    """What the user is told; empty if all went well."""
    try:
        make()
    except MedfsadError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one method's fault must not end the others' work
        traceback.print_exc()
        return f"{type(error).__name__}: {error}. That is no fault that is foreseen; its traceback is in {log}."
    return ""


@cache
def _settled(workplace: Workplace) -> Runner:
    """This process made ready for a sweep's tasks: folder, threads, and one cache for all of them.

    Raises:
        ResultsError: If the folder isn't there that relative paths start from.
    """
    try:
        os.chdir(workplace.cwd)
    except OSError as error:
        raise ResultsError(
            f"{workplace.cwd} isn't on {platform.node()} ({error.strerror}). Expected the folder where the sweep was "
            "started, on a file system that all machines share."
        ) from error
    torch.set_num_threads(workplace.threads)
    threadpool_limits(workplace.threads)  # of the libraries below NumPy; Ray sets OMP_NUM_THREADS on its own
    store = None
    if workplace.store is not None:
        store = FeatureStore(workplace.store, budget_bytes=workplace.store_bytes, tell=_say)
    callback = trackers(workplace.track, workplace.runs)
    runner = Runner(workplace.device, store=store, cache_bytes=workplace.cache_bytes, callback=callback)
    runner.cache.announce(workplace.backbones)
    return runner


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")  # into the task's log


class _HandedBackError(BaseException):
    """Passes everything that catches errors, as `KeyboardInterrupt` does."""
