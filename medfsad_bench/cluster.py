"""A Ray cluster: join it, say what it offers, leave it. Ray is an extra, imported when it is asked for."""

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfsad_bench.errors import MethodError
from medfsad_bench.processes import usable_cpus

RETRIES = 3  # by Ray itself, of a task whose worker or node is lost
_ANSWER_S = 300.0  # a node's first worker imports PyTorch, from a slow file system maybe
_KNOCK_S = 10.0
_LOCAL_STORE_BYTES = 128 << 20  # of a Ray that is started here: results go to files, not through the object store


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a cluster offers.

    Attributes:
        nodes: Names of the nodes that live.
        cpus: Of all nodes.
        gpus: Of all nodes.
    """

    nodes: tuple[str, ...]
    cpus: float
    gpus: float

    @property
    def in_words(self) -> str:
        """As a user is told."""
        count = f"{len(self.nodes)} node{'s' if len(self.nodes) > 1 else ''}"
        return f"{count}, {self.cpus:g} CPUs and {self.gpus:g} GPUs"


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Be part of a cluster for the time of the block, or of a Ray that is started for it on this machine alone.

    Args:
        address: `auto`, HOST:PORT, `local` for one that is started here, or None for the one that RAY_ADDRESS names and
            else one that is started here.

    Raises:
        MethodError: If Ray isn't installed, or there is no such cluster, or one of another version.
    """
    if importlib.util.find_spec("ray") is None:
        raise MethodError(
            "--engine ray needs Ray, which isn't installed. Install the extra: pip install 'medfsad[ray]'."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # else one that takes too much is begun for ever
    import ray

    started: dict[str, Any] = {"address": address}
    if address == "local" or (address is None and not os.environ.get("RAY_ADDRESS")):
        here = {"num_cpus": usable_cpus(), "object_store_memory": _LOCAL_STORE_BYTES}
        started = {"address": "local", "include_dashboard": False, **here}
    try:
        _knock(started["address"] or os.environ["RAY_ADDRESS"])
        ray.init(**started, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "started here"
        raise MethodError(
            f"No Ray cluster to be had at {where!r} ({first_line(error)}). Expected HOST:PORT of a running one of Ray "
            f"{ray.__version__}, or `auto` on one of its nodes; `ray start --head` starts one, `ray status` shows it."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def living_nodes() -> list[dict[str, Any]]:
    """What Ray tells of each node that lives, of the cluster that this process has joined."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def on_each_node(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Name of every node that lives, and what the function returns there, or the `RayError` that kept it from it.

    Ray notices seconds later that a node was lost: one that is gone by the time it should answer isn't among them.

    Args:
        function: Importable; it is given no CPU of its own, so that it waits for nobody's task.
        arguments: Of it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = []
    for node in living_nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote: Any = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        asked.append((node, remote.remote(*arguments)))
    answers = []
    for node, reference in asked:
        try:
            answers.append((str(node["NodeName"]), ray.get(reference, timeout=_ANSWER_S)))
        except ray.exceptions.RayError as error:
            if node["NodeID"] in {living["NodeID"] for living in living_nodes()}:
                answers.append((str(node["NodeName"]), error))
    return answers


def require_on_all_nodes(paths: Sequence[Path]) -> None:
    """Refuse a cluster that doesn't share some files or folders with this machine.

    Args:
        paths: Relative ones start in the present folder, which has to be there, too.

    Raises:
        MethodError: Naming the first node that misses one.
    """
    absolute = [Path.cwd(), *(path.absolute() for path in paths)]
    for name, missing in on_each_node(_missing, absolute):
        if missing:
            why = (
                f"doesn't see {missing[0]}" if isinstance(missing, list) else f"doesn't answer ({first_line(missing)})"
            )
            raise MethodError(
                f"The node {name} {why}. Expected the same files on every node, on a file system that they share; "
                "nothing was done. Name folders that lie on it."
            )


def cluster_facts() -> ClusterFacts:
    """What the cluster offers that this process has joined."""
    nodes = living_nodes()
    total = {name: sum(node["Resources"].get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    return ClusterFacts(tuple(str(node["NodeName"]) for node in nodes), total["CPU"], total["GPU"])


def cluster_in_words(address: str | None) -> str:
    """What a Ray cluster offers, or why it can't be had.

    Args:
        address: As for `joined`.
    """
    try:
        with joined(address):
            return cluster_facts().in_words
    except MethodError as error:
        return str(error)


def first_line(error: BaseException) -> str:
    """The first line of what Ray says; the others are of its inside."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _knock(address: str) -> None:
    """Ask whether anybody listens at HOST:PORT, as Ray itself takes minutes to find out and may end the process.

    Raises:
        OSError: If nobody does.
    """
    host, colon, port = address.rpartition(":")
    if colon and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _missing(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]
