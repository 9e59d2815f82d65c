"""What a run tells whoever listens: its stages, epochs, draws and rows, as they come.

Listeners see numbers and change none: a run with them has the same id, scores and row as one without.
"""

from collections.abc import Mapping, Sequence

from medfsad_bench.results.row import Row
from medfsad_bench.runner.plan import Cell


class RunCallback:
    """Listens to runs; derive from it and write the parts that you want.

    A run that is taken up again tells of the epochs and draws that it still makes, and of all draws at the end; one
    that was finished before tells of its row alone.
    """

    def on_stage(self, cell: Cell, stage: str, steps: int) -> None:
        """A stage (`training`, `scoring`) begins, with so many steps."""

    def on_epoch(self, cell: Cell, epoch: int, figures: Mapping[str, float]) -> None:
        """Epoch `epoch`, counted from 1, is over; `figures` are those that the method showed last, as its loss."""

    def on_draw(self, cell: Cell, draw: int, auroc: float) -> None:
        """Support draw `draw`, counted from 0, is scored; `auroc` is its image AUROC."""

    def on_row(self, cell: Cell, row: Row) -> None:
        """The cell's row is there."""

    def on_left(self, cell: Cell) -> None:
        """This process is done with the cell for now: another one may go on with it, so nothing should stay open."""


SILENT = RunCallback()


class Together(RunCallback):
    """Several listeners as one, told in their order."""

    def __init__(self, callbacks: Sequence[RunCallback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_stage(self, cell: Cell, stage: str, steps: int) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_stage(cell, stage, steps)

    def on_epoch(self, cell: Cell, epoch: int, figures: Mapping[str, float]) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_epoch(cell, epoch, figures)

    def on_draw(self, cell: Cell, draw: int, auroc: float) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_draw(cell, draw, auroc)

    def on_row(self, cell: Cell, row: Row) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_row(cell, row)

    def on_left(self, cell: Cell) -> None:
        """Tell each."""
        for callback in self._callbacks:
            callback.on_left(cell)
