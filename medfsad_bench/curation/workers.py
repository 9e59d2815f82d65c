"""Worker processes that read images, for as long as the process that started them lives."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from medfsad_bench.errors import CurationError
from medfsad_bench.processes import end_with_parent

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_LARGEST_CHUNK = 32  # jobs that a worker is handed at once


def map_in_workers(
    function: Callable[[_Job], _Result], jobs: Sequence[_Job], *, workers: int, preload: str
) -> Iterator[_Result]:
    """Results in the order of the jobs; in this process where there are few jobs or one worker.

    Args:
        function: What is done to each; it has to be importable, as its argument and result have to be picklable.
        jobs: What it is done to.
        workers: Number of processes.
        preload: Module that takes its time to import, so that it is imported once for all of them.

    Raises:
        CurationError: If a worker is killed, as the system does when memory runs out.
    """
    if workers <= 1 or len(jobs) < 2 * workers:
        yield from map(function, jobs)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    chunk = max(1, min(_LARGEST_CHUNK, len(jobs) // (4 * workers)))
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as executor:
            yield from executor.map(function, jobs, chunksize=chunk)
    except BrokenProcessPool as error:
        raise CurationError(
            f"One of the {workers} processes that read images was ended from outside; the usual reason is that memory "
            "ran out. What was read is kept: run the same command again, with fewer --workers if it happens again."
        ) from error
