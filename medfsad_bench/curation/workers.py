"""Processes that read images, of this machine or of a cluster that this process has joined."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from medfsad_bench.cluster import RETRIES, cluster_facts, first_line
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
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as executor:
            yield from executor.map(function, jobs, chunksize=_chunk(len(jobs), workers))
    except BrokenProcessPool as error:
        raise CurationError(
            f"One of the {workers} processes that read images was ended from outside; the usual reason is that memory "
            "ran out. What was read is kept: run the same command again, with fewer --workers if it happens again."
        ) from error


def map_on_cluster(function: Callable[[_Job], _Result], jobs: Sequence[_Job]) -> Iterator[_Result]:
    """Results in the order of the jobs, from the nodes of the Ray cluster that this process has joined.

    No more chunks are under way than the cluster has room for twice, so that this process holds few results at once.

    Args:
        function: As for `map_in_workers`; what it reads and writes has to lie on a file system that all nodes share.
        jobs: What it is done to.

    Raises:
        CurationError: If a chunk's worker is lost again and again.
    """
    import ray

    task: Any = ray.remote(_chunk_of).options(num_cpus=1, max_retries=RETRIES)
    workers = max(1, int(cluster_facts().cpus))
    chunk = _chunk(len(jobs), workers)
    begun = (task.remote(Path.cwd(), function, jobs[start : start + chunk]) for start in range(0, len(jobs), chunk))
    under_way = deque(islice(begun, 2 * workers))
    try:
        while under_way:
            yield from ray.get(under_way.popleft())
            under_way.extend(islice(begun, 1))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise CurationError(
            f"The cluster lost a worker that read images, {RETRIES + 1} times ({first_line(error)}). The usual reason "
            "is that memory ran out. What was read is kept: run the same command again."
        ) from error


def _chunk(jobs: int, workers: int) -> int:
    """How many jobs are handed over at once: few enough that all workers have some until the end."""
    return max(1, min(_LARGEST_CHUNK, jobs // (4 * workers)))


def _chunk_of(cwd: Path, function: Callable[[_Job], _Result], chunk: Sequence[_Job]) -> list[_Result]:
    os.chdir(cwd)  # relative paths start where the command was given
    return [function(job) for job in chunk]
