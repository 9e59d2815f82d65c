"""The folder that `prepare` writes to: for one process at a time, and without what dead ones left half-written."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import current_process
from pathlib import Path

from filelock import FileLock, Timeout

from medfsad_bench.curation.options import Watcher
from medfsad_bench.curation.staging import writing
from medfsad_bench.files import sweep

_LOCK = ".lock"


@contextmanager
def sole_writer(out: Path, source: Path, watcher: Watcher) -> Iterator[None]:
    """Hold the folder; another process that holds it is waited for, and named.

    Two that wrote side by side would use and clear each other's staged images, and neither would see what the other's
    sets share with its own.

    Args:
        out: Made if it isn't there.
        source: What is being prepared, for whoever waits.
        watcher: Is told who is waited for.

    Raises:
        CurationError: If nothing can be written there.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / _LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            watcher.start(f"waiting for {_holder(out / _LOCK)}, which writes to {out} too", 0)
            lock.acquire()
    try:
        with writing(out):
            text = f"process {current_process().pid} on {socket.gethostname()} ({source}, since {datetime.now():%H:%M})"
            (out / _LOCK).write_text(text, "utf-8")
            sweep(out)
        yield
    finally:
        lock.release()


def _holder(lock: Path) -> str:
    try:
        return lock.read_text("utf-8", errors="replace")[:300] or "another process"
    except OSError:  # some systems don't let a locked file be read
        return "another process"
