"""What fails of several cells for a user's reason fails alone, with its paragraph; the rest go on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medfsad_bench.errors import DiskError, MedfsadError, UnfitMethodError


class Failures:
    """The cells that failed.

    Args:
        cells: How many there are in all. The only one doesn't fail alone: its error is that of the whole command.
        tell: Told of each failure, in one line.

    Attributes:
        paragraphs: One for each cell that failed, with its title.
    """

    def __init__(self, cells: int, tell: Callable[[str], None] = lambda _: None) -> None:
        self.paragraphs: list[str] = []
        self._cells, self._tell = cells, tell

    @contextmanager
    def alone(self, title: str) -> Iterator[None]:
        """Note what fails in the block; what comes after it goes on.

        Args:
            title: Of the cell that the block makes.

        Raises:
            MedfsadError: What would fail in the other cells, too: the disk takes nothing, or the method can't do what
                is asked of it on any target.
        """
        try:
            yield
        except (DiskError, UnfitMethodError):
            raise
        except MedfsadError as error:
            if self._cells == 1:
                raise
            self.paragraphs.append(f"{title}: {error}")
            self._tell(f"{title}: failed: {error}")
