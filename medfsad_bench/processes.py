"""How many processes there is room for, and workers that end with the process that started them, however that ends."""

import os
import signal
import threading
from multiprocessing import current_process, parent_process
from multiprocessing.connection import wait


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


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
