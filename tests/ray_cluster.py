"""A Ray cluster of this machine alone, for tests, and a process that sweeps on it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 128 << 20, "include_dashboard": False}


@contextmanager
def started(shipped: Path, cpus: int, settings: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A head for the time of the block; the test is skipped where none can be started.

    Args:
        shipped: Folder for prepared files that are sent to nodes.
        cpus: Of the head.
        settings: Environment of the head, and of nodes that are added.
    """
    from ray.cluster_utils import Cluster

    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "RAY_TMPDIR": "/tmp",  # noqa: S108 - sockets need short paths
        "TMPDIR": str(shipped),
        **(settings or {}),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": cpus})
        except (OSError, TimeoutError, RuntimeError) as error:
            pytest.skip(f"no Ray cluster can be started on this machine: {error}")
        try:
            yield cluster
        finally:
            cluster.shutdown()


def driver(cluster: Any, data: Path, runs: Path, *options: str) -> "subprocess.Popen[str]":
    """`ray_driver.py`, begun; what it says comes through a pipe."""
    script = Path(__file__).with_name("ray_driver.py")
    command = [sys.executable, str(script), cluster.address, str(data), str(runs), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
