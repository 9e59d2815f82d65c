"""What all commands print with: consoles, the error paragraph, JSON, tables, progress bars."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from medfsad_bench.display import visible


class SafeConsole(Console):
    """A console on which no text that others wrote can move the cursor, change colours, or become a picture."""

    def render_str(self, text: str, *args: Any, **style: Any) -> Text:
        """Every text that is printed comes through here, cells of tables, too."""
        return super().render_str(visible(text), *args, **{**style, "emoji": False})


out = SafeConsole(highlight=False)
err = SafeConsole(stderr=True, highlight=False)


def fail(message: str) -> NoReturn:
    """Print one paragraph and exit with 2."""
    paragraph = " ".join(printable(message).split())
    err.print(Text.assemble(("Error:", "bold red"), " ", visible(paragraph)))  # one text, or its first line is too long
    sys.exit(2)


def print_json(content: Any) -> None:
    """Machine-readable output on stdout, nothing else with it."""
    sys.stdout.write(visible(json.dumps(content, indent=1, ensure_ascii=False)) + "\n")


def printable(text: object) -> str:
    """A text that any console takes: bytes of a name that are no UTF-8 are written as hexadecimal."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def table_of(columns: Iterable[str | Column], rows: Iterable[Iterable[str | Text]], **style: Any) -> Table:
    """Rows of cells as a table for the terminal, in the style of rich's `Table`; brackets in them are no markup."""
    texts = {name: escape(value) for name, value in style.items() if name in ("title", "caption")}
    table = Table(*columns, **{**style, **texts})
    for row in rows:
        table.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def unfolded(*names: str) -> list[Column]:
    """Columns of a terminal's table that keep each cell on one line."""
    return [Column(name, no_wrap=True) for name in names]


def folded(*names: str) -> list[Column]:
    """Columns of a terminal's table whose long cells go on in the next line."""
    return [Column(name, overflow="fold") for name in names]


class Bars:
    """One bar that is reused for one stage after the other; see `progress_bars`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", visible=False, note="")

    def start(self, label: str, total: int) -> None:
        """A stage with `total` steps begins; one without steps is a line of its own, seen in a log file too."""
        if not total:
            self._progress.console.print(label, markup=False)
            return
        self._progress.reset(self._task, description=label, total=total, visible=True, note="")

    def advance(self, steps: int) -> None:
        """Some steps are done."""
        self._progress.advance(self._task, steps)

    def at(self, note: str, done: int, total: int) -> None:
        """Say how much of the stage is done, and something beside the bar."""
        self._progress.update(self._task, completed=done, total=total, note=note)

    def following(self, title: str) -> Callable[[str, int, int, dict[str, float]], None]:
        """A callback for a runner: one bar per stage, with the stage's numbers beside it."""
        stage = ""

        def show(name: str, done: int, total: int, values: dict[str, float]) -> None:
            nonlocal stage
            if name != stage:
                stage = name
                self.start(f"{title}: {name}", total)
            self.at(" ".join(f"{key} {value:.4f}" for key, value in values.items()), done, total)

        return show

    def finish(self) -> None:
        """Take the bar away; what it stood for is printed by the command."""
        self._progress.update(self._task, visible=False)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars on stderr with counts, time spent and an estimate of the time left."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=err,
    ) as progress:
        bars = Bars(progress)
        yield bars
        bars.finish()
