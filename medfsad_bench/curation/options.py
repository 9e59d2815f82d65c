"""What `prepare` was asked for, and what shows its progress."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

FAULTS = (
    "smaller",
    "near-duplicates",
    "other-files",
    "shared-images",
    "masks",
    "mask-grid",
    "two-files",
    "both-labels",
    "one-patient",
)

IntensityChoice = Literal["full", "used", "percentiles"]


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What the user asked for."""

    out: Path
    benchmark: str = "medfsad-13k"
    size_px: int = 256
    workers: int = 1
    allow: frozenset[str] = frozenset()
    dry_run: bool = False
    intensity: IntensityChoice | None = None  # for own folders, where the files leave it open
    on_cluster: bool = False  # images are read on the Ray cluster that this process has joined


@runtime_checkable
class Watcher(Protocol):
    """What shows progress."""

    def start(self, label: str, total: int) -> None:
        """A stage with `total` steps begins; one without steps is something that the user should know."""

    def advance(self, steps: int) -> None:
        """Some steps are done."""
