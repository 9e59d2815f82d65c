"""What `prepare` was asked for, what it tells, and what becomes of a set."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

FAULTS = ("smaller", "near-duplicates", "other-files", "shared-images")


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What the user asked for."""

    out: Path
    benchmark: str = "medfsad-13k"
    size_px: int = 256
    workers: int = 1
    allow: frozenset[str] = frozenset()
    dry_run: bool = False


@dataclass(slots=True)
class SetReport:
    """What became of one set; written beside its file as JSON."""

    name: str
    benchmark: str
    source: str
    path: str = ""
    wanted: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    candidates: int = 0
    spare: int = 0
    quarantined: dict[str, str] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    licensed: bool = False
    membership_digest: str = ""
    content_digest: str = ""
    reused: bool = False

    def note(self, fault: str) -> None:
        """Add a fault that was let through."""
        if fault not in self.allowed:
            self.allowed = sorted([*self.allowed, fault])


@runtime_checkable
class Watcher(Protocol):
    """Whoever shows progress."""

    def start(self, label: str, total: int) -> None:
        """A stage with `total` steps begins."""

    def advance(self, steps: int) -> None:
        """Some steps are done."""


def write_report(report: SetReport, path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)


def split_key(split: str, anomalous: bool) -> str:
    """A class on a side, in words.

    >>> split_key("test", True)
    'test anomalous'
    """
    return f"{split} {'anomalous' if anomalous else 'normal'}"
