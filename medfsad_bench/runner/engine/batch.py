"""A sweep as something that a cluster's own scheduler starts: a batch script for Slurm, a RayJob for Kubernetes."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medfsad_bench.errors import MethodError

RAY_PORT = 6379


@dataclass(frozen=True, slots=True)
class Allocation:
    """What is asked of the scheduler.

    Attributes:
        nodes: Machines.
        cpus_per_node: CPUs of each.
        gpus_per_node: GPUs of each.
        memory_gib_per_node: Main memory of each.
        hours: Longest time.
        image: Container image with medfsad and Ray, for Kubernetes.
        claim: Persistent volume claim that all nodes share, for Kubernetes.
    """

    nodes: int = 2
    cpus_per_node: int = 8
    gpus_per_node: int = 0
    memory_gib_per_node: int = 32
    hours: float = 24.0
    image: str = ""
    claim: str = ""


def slurm_script(command: Sequence[str], allocation: Allocation, folder: Path) -> str:
    """A batch script that starts Ray on an allocation and runs a sweep on it.

    Args:
        command: Words of the sweep's command; `--engine ray --address auto` are among them.
        allocation: What to ask for.
        folder: Where the sweep runs; all nodes have to see it.
    """
    minutes = round(60 * allocation.hours)
    time = f"{minutes // 60:02d}:{minutes % 60:02d}:00"
    facts = {"command": shlex.join(command), "folder": shlex.quote(str(folder)), "time": time, "port": RAY_PORT}
    return _TEMPLATES.get_template("sweep.sbatch.jinja").render(allocation=allocation, **facts)


def ray_job(command: Sequence[str], allocation: Allocation, folder: Path, ray_version: str) -> str:
    """A RayJob manifest (KubeRay, ray.io/v1) that starts a cluster, runs a sweep on it and takes the cluster down.

    Args:
        command: As for `slurm_script`.
        allocation: What to ask for.
        folder: Where the shared volume is mounted and the sweep runs.
        ray_version: Of the image.

    Raises:
        MethodError: If no image or volume claim is named.
    """
    missing = [f"--{name}" for name in ("image", "claim") if not getattr(allocation, name)]
    if missing:
        raise MethodError(
            f"A RayJob needs {' and '.join(missing)}: a container image with medfsad and its extra `ray`, and a volume "
            "claim (ReadWriteMany) that holds prepared sets and takes the runs. Give both."
        )
    facts: Mapping[str, Any] = {
        "command": shlex.join(["sh", "-c", f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}"]),
        "folder": str(folder),
        "ray_version": ray_version,
        "seconds": round(3600 * allocation.hours),
    }
    return _TEMPLATES.get_template("sweep.rayjob.yaml.jinja").render(allocation=allocation, **facts)


_TEMPLATES = Environment(
    loader=PackageLoader("medfsad_bench.runner.engine", "."),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - no HTML: shell words are quoted by shlex, YAML strings written as JSON
)
_TEMPLATES.filters["json"] = json.dumps
