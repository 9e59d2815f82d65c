"""Tasks on a Ray cluster. Imported late, since Ray is an extra.

Ray holds the cluster together: it places tasks by their resources, starts and ends workers, and tells of those that are
lost. Prepared files are read from a file system that all nodes share, or shipped once to each node; results go into the
folder of runs, which has to be shared in any case.
"""

from collections.abc import Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from medfsad_bench.cluster import cluster_facts, first_line, living_nodes, on_each_node
from medfsad_bench.errors import MethodError, ResultsError
from medfsad_bench.runner.engine.graph import Task
from medfsad_bench.runner.engine.jobs import Job, Workplace, packed
from medfsad_bench.runner.engine.nodes import (
    FilesOfSweep,
    NodeReport,
    Resources,
    node_report,
    refuse_large_shipment,
    shipped_file,
)
from medfsad_bench.runner.engine.worker import Outcome, perform

Shipped = dict[Path, tuple[str, Any]]  # content digest and reference of each prepared file that is sent


class RayEngine:
    """An engine on the Ray cluster that this process has joined; see `sweep.Engine`.

    Args:
        resources: For each task.
        workplace: Of the sweep; tasks that share a node share out its room for features.
        files: That tasks read, and where they write.
        ship_data: Whether prepared files are sent to the nodes.

    Raises:
        MethodError: If no node is large enough for a task.
        ResultsError: If the files that are to be shipped are too large.
    """

    def __init__(
        self,
        resources: Resources,
        workplace: Workplace,
        files: FilesOfSweep,
        *,
        ship_data: bool = False,
    ) -> None:
        self._files = files
        gpus = resources.gpus
        if gpus is None:
            gpus = 1.0 if workplace.device != "cpu" and cluster_facts().gpus else 0.0
        self._needs = {"CPU": float(resources.cpus), "GPU": gpus, "memory": (resources.memory_gib or 0) * 2**30}
        self.capacity = self._capacity()
        neighbours = max(map(self._room_in, _offered_by_nodes()), default=1)
        self._workplace = replace(workplace, cache_bytes=workplace.cache_bytes // neighbours)
        self._shipped = _shipped(files) if ship_data else {}
        self._options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": gpus, "max_retries": 0}
        self._options |= {"memory": int(self._needs["memory"])} if resources.memory_gib else {}
        self._remote: Any = ray.remote(_perform)
        self._with_workers: dict[Hashable, Task] = {}
        self._short_of_memory: set[str] = set()  # ids of tasks

    def check_nodes(self) -> list[str]:
        """Ask every node whether it sees the same files and has the same packages.

        Returns:
            What is worth saying and no reason to stop: processors that differ.

        Raises:
            ResultsError: Naming the nodes where a task would fail, and why.
        """
        faults, processors = dict[str, str](), dict[str, str]()
        with self._files.marked() as mark:
            answers = on_each_node(_report, self._workplace, self._files, mark, self._shipped)
        for name, report in answers:
            if not isinstance(report, NodeReport):
                faults[name] = f"its worker doesn't answer ({first_line(report)})"
                continue
            processors[name] = report.processor
            if report.fault:
                faults[name] = report.fault
        if faults:
            each = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
            raise ResultsError(
                f"{len(faults)} of {len(answers)} nodes can't do this sweep's tasks. {each}. Expected the same "
                "medfsad, PyTorch and prepared files, and one folder of runs that all share; nothing was run. Share "
                "--data and --runs, or ship small sets with --ship-data."
            )
        if len(set(processors.values())) > 1:
            each = ", ".join(f"{name}: {processor}" for name, processor in processors.items())
            return [f"nodes have different processors, so scores may differ in their last bits ({each})"]
        return []

    def submit(self, task: Task) -> Hashable:
        """Hand a task over to Ray; one that memory ran out beside gets a node to itself.

        Ray ends several workers at once where a node runs low on memory, whichever of them took it. Alone, the task
        that takes too much harms nobody, and the others have all that there is.
        """
        job, options = packed(task, self._workplace), self._options
        if task.id in self._short_of_memory:
            options = options | {"num_cpus": self._cpus_of_a_node()}
        handle = cast(Hashable, self._remote.options(**options).remote(job, self._shipped))
        self._with_workers[handle] = task
        return handle

    def ended(self, handles: Collection[Hashable], timeout_s: float) -> Collection[Hashable]:
        """Those that have ended; waits for the first, but no longer than that."""
        references: list[Any] = list(handles)
        if not ray.wait(references, num_returns=1, timeout=timeout_s)[0]:
            with suppress(MethodError):  # nodes come and go
                self.capacity = self._capacity()
            return ()
        return cast(list[Hashable], ray.wait(references, num_returns=len(references), timeout=0)[0])

    def outcome(self, handle: Hashable) -> Outcome:
        """How a task ended that has."""
        task = self._with_workers.pop(handle)
        try:
            return cast(Outcome, ray.get(cast(Any, handle)))
        except RayTaskError as error:  # ours says its faults by itself: this is of a worker that can't even begin
            return Outcome("failed", message=f"a worker can't begin ({first_line(error)}). Is medfsad installed there?")
        except OutOfMemoryError as error:
            was_alone = task.id in self._short_of_memory
            self._short_of_memory.add(task.id)
            return Outcome("lost", message=_out_of_memory(error, was_alone))
        except RayError as error:
            what = type(error).__name__.removesuffix("Error")
            return Outcome("lost", message=f"its worker or its node was lost ({what}: {first_line(error)})")

    def _capacity(self) -> int:
        """Twice as many tasks as can be done at once, so that no worker waits for this process.

        Raises:
            MethodError: If no node is large enough for one.
        """
        slots, largest = 0, dict[str, float]()
        for offered in _offered_by_nodes():
            slots += self._room_in(offered)
            largest = {name: max(offered.get(name, 0), largest.get(name, 0)) for name in self._needs}
        if not slots:
            raise MethodError(
                f"No node of the cluster is large enough for a task, which needs {_in_words(self._needs)}; the most "
                f"that a node has is {_in_words(largest)}. Ask for less with --cpus-per-task, --gpus-per-task and "
                "--memory-per-task, or add nodes."
            )
        return 2 * slots

    def _cpus_of_a_node(self) -> float:
        """All of the smallest node that is large enough for a task: other numbers might be nowhere when nodes go."""
        whole = [offered["CPU"] for offered in _offered_by_nodes() if self._room_in(offered)]
        return min(whole, default=self._needs["CPU"])

    def _room_in(self, offered: Mapping[str, float]) -> int:
        """How many tasks there is room for in what a node offers."""
        return int(min(offered.get(name, 0) // need for name, need in self._needs.items() if need))


def _perform(job: Job, shipped: Shipped) -> Outcome:
    return perform(job, partial(_located, shipped))


def _report(workplace: Workplace, files: FilesOfSweep, mark: Path, shipped: Shipped) -> NodeReport:
    return node_report(workplace, files, mark, partial(_located, shipped))


def _located(shipped: Shipped, path: Path) -> Path:
    """Where a prepared file lies on this node; a shipped one is fetched when it is first asked for."""
    if path not in shipped:
        return path
    digest, reference = shipped[path]
    return shipped_file(path, digest, lambda: cast(bytes, ray.get(reference)))


def _shipped(files: FilesOfSweep) -> Shipped:
    refuse_large_shipment(files)
    return {path: (digest, ray.put(path.read_bytes())) for path, digest in files.digests.items()}


def _offered_by_nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in living_nodes()]


def _out_of_memory(error: OutOfMemoryError, was_alone: bool) -> str:
    """What the user is told of a task whose node ran out of memory."""
    if not was_alone:
        return (
            f"its node ran low on memory, and Ray ended workers there ({first_line(error)}). Tasks that lost theirs "
            "get a node to themselves. Fewer share one with --memory-per-task or more --cpus-per-task."
        )
    return (
        f"with a node to itself it ran low on memory, and Ray ended its worker ({first_line(error)}). Finished epochs "
        "and draws are kept: lower what the method holds (its size_px or batch_size), choose a smaller --backbone, or "
        "take nodes with more memory."
    )


def _in_words(resources: Mapping[str, float]) -> str:
    memory_gib = resources.get("memory", 0.0) / 2**30
    return f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs and {memory_gib:.1f} GiB of memory"
