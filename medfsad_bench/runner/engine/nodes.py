"""What a task needs of a cluster's machines, what has to hold there, and how prepared files get there."""

import os
import platform
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from medfsad_bench import __version__
from medfsad_bench.errors import MedfsadError, ResultsError
from medfsad_bench.files import whole, write_text
from medfsad_bench.results.storage import locked, writing
from medfsad_bench.runner.engine.jobs import Workplace
from medfsad_bench.store import Dataset
from medfsad_bench.store.proof import prove

LARGEST_SHIPMENT = 2 << 30  # bytes: more belongs on a file system that the nodes share


@dataclass(frozen=True, slots=True)
class Resources:
    """What each task is given.

    Attributes:
        cpus: Threads.
        gpus: Of one GPU, as 0.5 is half of it; Ray counts them and doesn't divide memory. None takes one where the
            device may be a GPU and the cluster has any.
        memory_gib: Main memory that has to be free on a node; None asks for nothing.
    """

    cpus: int = 1
    gpus: float | None = None
    memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class FilesOfSweep:
    """What tasks read and where they write.

    Attributes:
        digests: Content digest of each prepared file that takes part.
        runs: Folder of runs.
        versions: Of medfsad and PyTorch where the sweep was planned.
    """

    digests: Mapping[Path, str]
    runs: Path
    versions: tuple[str, str] = (__version__, torch.__version__)

    @contextmanager
    def marked(self) -> Iterator[Path]:
        """Lend a file in the folder of runs: who sees it sees this folder, and not another one of that name."""
        mark = self.runs / f".shared-{uuid.uuid4().hex}"
        with writing(self.runs):
            write_text(mark, "")
        try:
            yield mark
        finally:
            mark.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node says of itself.

    Attributes:
        fault: Why it can't do the sweep's tasks; empty if it can.
        processor: Its kind.
    """

    fault: str
    processor: str


def node_report(workplace: Workplace, files: FilesOfSweep, mark: Path, located: Callable[[Path], Path]) -> NodeReport:
    """Look, on a node, for what a task would fail by; `mark` is a file that lies in the folder of runs."""
    fault = ""
    versions = (__version__, torch.__version__)
    try:
        os.chdir(workplace.cwd)
        for path, digest in files.digests.items():
            dataset = Dataset(located(path))
            prove(dataset)
            if dataset.attributes["content_digest"] != digest:
                fault = f"its {path} is another file ({dataset.attributes['content_digest'][:12]}…, not {digest[:12]}…)"
        if not mark.is_file():
            fault = f"it doesn't see {files.runs}"
    except MedfsadError as error:
        fault = str(error)
    except OSError as error:
        fault = f"the folder {workplace.cwd}, in which the sweep was started, isn't there ({error.strerror})"
    if versions != files.versions:
        fault = f"it has medfsad and PyTorch {' and '.join(versions)}, not {' and '.join(files.versions)}"
    return NodeReport(fault, _processor())


def refuse_large_shipment(files: FilesOfSweep) -> None:
    """Refuse to send through the object store what would fill it.

    Raises:
        ResultsError: If the prepared files are too large together.
    """
    size = sum(path.stat().st_size for path in files.digests)
    if size > LARGEST_SHIPMENT:
        raise ResultsError(
            f"--ship-data would send {size / 2**30:.1f} GiB of prepared files to every node, more than "
            f"{LARGEST_SHIPMENT / 2**30:.0f} GiB. Put --data on a file system that the nodes share and leave it out."
        )


def shipped_file(path: Path, digest: str, fetch: Callable[[], bytes]) -> Path:
    """Where a file that was sent lies on this machine: written by the first process that asks for it.

    Args:
        path: Of the file where it came from.
        digest: Of its content, by which it is known here.
        fetch: Gives its bytes.

    Raises:
        ResultsError: If it can't be written, or somebody else's files lie where it belongs.
    """
    user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"medfsad-shipped-{user}"
    with writing(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != user:
        raise ResultsError(f"{folder} on {platform.node()} is another user's. Remove it, or set TMPDIR on the nodes.")
    here = folder / digest / path.name
    if not here.is_file():
        with locked(here.parent), writing(here.parent):
            if not here.is_file():
                with whole(here) as temporary:
                    temporary.write_bytes(fetch())
    return here


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
