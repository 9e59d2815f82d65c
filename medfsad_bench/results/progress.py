"""What is said of a folder while a worker makes it, be it that of a run or of a training.

progress.json   how far it is, where, and when that was said; gone as soon as nobody makes it
output.log      what the worker printed meanwhile, if anything; a failure's traceback
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medfsad_bench.files import write_json
from medfsad_bench.processes import process_number
from medfsad_bench.results.storage import is_locked

_PROGRESS, _OUTPUT = "progress.json", "output.log"
_EVERY_S = 1.0  # between two notes: shared file systems don't like more


class Progress:
    """Notes how far a task is, for whoever looks from elsewhere; no reason to fail if that can't be written.

    Args:
        folder: Of the run or the training.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._last = folder, 0.0

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Note a stage's steps, once a second at most."""
        if time.monotonic() - self._last < _EVERY_S:
            return
        self._last = time.monotonic()
        by = {"host": platform.node(), "process": process_number(), "time": time.time()}
        with suppress(OSError, ValueError):
            write_json(self._folder / _PROGRESS, {"stage": stage, "done": done, "total": total, **by, **figures})

    def end(self) -> None:
        """Nobody makes it any more."""
        with suppress(OSError):
            (self._folder / _PROGRESS).unlink(missing_ok=True)


def progress_of(folder: Path) -> dict[str, Any]:
    """What was noted last of what is being made; empty if nothing is."""
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / _PROGRESS).read_text("utf-8")))
    return {}


def is_being_made(folder: Path) -> bool:
    """Whether some process, on whatever machine, has the folder to itself at this moment."""
    return is_locked(folder)


@contextmanager
def output_kept(folder: Path) -> Iterator[Path]:
    """Everything that this process prints in the block, C libraries included, goes to the folder's log.

    Yields:
        The log; it is removed at the end if nothing was printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _OUTPUT
    streams = (sys.stdout, sys.stderr)
    with path.open("ab") as file:
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number, stream in zip((1, 2), streams, strict=True):
                stream.flush()
                os.dup2(file.fileno(), number)
            yield path
        finally:
            for number, stream, before in zip((1, 2), streams, kept, strict=True):
                stream.flush()
                os.dup2(before, number)
                os.close(before)
    if not path.stat().st_size:
        path.unlink(missing_ok=True)
