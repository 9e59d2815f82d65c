"""What all commands print with: consoles, the error paragraph, JSON, intervals, Markdown, progress bars."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

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

if TYPE_CHECKING:
    from medfsad_bench.estimates.estimate import Estimate
    from medfsad_bench.metrics.paired import Difference

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


def interval_text(estimate: "Estimate") -> str:
    """An estimate with its interval where it has one, as `0.701 [0.650, 0.752]`."""
    ends = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{ends}"


def difference_text(difference: "Difference") -> str:
    """A difference with its sign and its interval, as `-0.041 [-0.111, +0.030]`."""
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Lines of cells as a Markdown table."""
    shown = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *shown, ""])


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
        """Say how much of the stage is done."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def following(self, title: str) -> Callable[[str, int, int, dict[str, float]], None]:
        """A callback for a runner: one bar per stage, with the stage's numbers beside it."""
        stage = ""

        def show(name: str, done: int, total: int, values: dict[str, float]) -> None:
            nonlocal stage
            if name != stage:
                stage = name
                self.start(f"{title}: {name}", total)
            self.at(done, total)
            self.note(" ".join(f"{key} {value:.4f}" for key, value in values.items()))

        return show

    def finish(self) -> None:
        """Take the bar away; what it stood for is printed by the command."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
