"""How many processes there is room for, and how they end: with the one that started them, or when they are told to."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process, parent_process
from multiprocessing.connection import wait
from types import FrameType


def usable_cpus() -> int:
    """How many CPUs this process may use: a batch system may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_each(jobs: int) -> int:
    """How many of them each of several jobs has that share them out evenly."""
    return max(1, usable_cpus() // jobs)


def process_number() -> int:
    """That by which the system knows this process."""
    return current_process().pid or 0


def end_with_parent() -> None:
    """End this process when its parent is gone, and leave Ctrl-C to the parent.

    A killed parent can tell nobody, but what it held open is closed: its end of the pipe that workers are watched by.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def sigterm_raises(error: type[BaseException]) -> Iterator[None]:
    """Meanwhile SIGTERM raises an error at the next step of Python, so that what is finished is kept on the way out.

    Only the main thread can hear signals; in another the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
