"""What all commands share: consoles, progress bars, JSON output, the error paragraph."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(message: str) -> NoReturn:
    """Print one paragraph and exit with 2."""
    err.print("[bold red]Error:[/] ", end="")
    err.print(" ".join(message.split()), markup=False)
    sys.exit(2)


def print_json(content: Any) -> None:
    """Machine-readable output on stdout, nothing else with it."""
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on stderr with counts, time spent and an estimate of the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=False) as progress:
        yield progress


class Bars:
    """One bar that is reused for one stage after the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def start(self, label: str, total: int) -> None:
        """A stage with `total` steps begins."""
        self.finish()
        self._task = self._progress.add_task(label, total=total, note="")

    def advance(self, steps: int) -> None:
        """Some steps are done."""
        if self._task is not None:
            self._progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        """Say something beside the bar."""
        if self._task is not None:
            self._progress.update(self._task, note=text)

    def at(self, done: int, total: int) -> None:
        """Set the bar to an absolute place."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def following(self, title: str) -> Callable[[str, int, int, dict[str, float]], None]:
        """A callback for a runner: one bar a stage, with the stage's figures beside it."""
        stage = ""

        def show(name: str, done: int, total: int, figures: dict[str, float]) -> None:
            nonlocal stage
            if name != stage:
                stage = name
                self.start(f"{title}: {name}", total)
            self.at(done, total)
            self.note(" ".join(f"{key} {value:.4f}" for key, value in figures.items()))

        return show

    def finish(self) -> None:
        """Take the bar away; what it stood for is printed by the command."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
