"""Features of frozen networks on disk, shared by all processes that work on one folder of runs.

    <folder>/<network>-<key>/<set>-<stages>-<rows>.arrow    see `feature_file`; key, set and rows are hashes

A network's key stands for all that its features' bits depend on, so that what is read is what would be computed. A file
is never changed: what a later run needs beside is a further file. One process computes what a set lacks while others
wait for it. What was used least recently goes when the budget is used up, but nothing that a process reads.

The store never stops a run: what can't be read or written is said in one line, and computed.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import SoftFileLease

from medfsad_bench.runner.feature_file import (
    About,
    Batch,
    Damaged,
    FeatureFile,
    open_features,
    remove_unused,
    write_features,
)

FOLDER = ".features"  # in the folder of runs
BUDGET_GB = 20.0
_LEFT_FREE_BYTES = 1 << 30  # of the disk, for the runs themselves
_BATCH_BYTES = 64 << 20  # so few batches that a gather visits few, and so small that one is no burden to hold
_LEASE_S = 30.0  # after so long without a sign of life another machine's writer counts as dead; one of this at once


class FeatureStore:
    """The features in one folder.

    Attributes:
        folder: Where they lie.
        budget_bytes: How much all files together may take.
        set_names: Names of prepared sets by their content digest, for whoever looks at the store.
    """

    def __init__(
        self, folder: Path, *, budget_bytes: int = round(BUDGET_GB * 1e9), tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """Nothing is made or read yet.

        Args:
            folder: Is made when something is written.
            budget_bytes: How much all files together may take.
            tell: Told in a line what can't be read or written; each line once.
        """
        self.folder = folder
        self.set_names: dict[str, str] = {}
        self.budget_bytes = budget_bytes
        self._tell = tell
        self._told: set[str] = set()
        self._open: dict[Path, FeatureFile] = {}
        self._is_writable = True

    def open(
        self, facts: dict[str, Any], stages: Sequence[int], content_digest: str, wanted: Set[bytes]
    ) -> list[FeatureFile]:
        """Files that hold these stages of any of the images that are wanted, and aren't open yet; each proven.

        Args:
            facts: Of the network, `frozen.facts_of`.
            stages: Of the network.
            content_digest: Of the prepared file.
            wanted: Digests of its images.
        """
        files = []
        for path in sorted(self._shelf(facts).glob(f"{_short(content_digest)}-*.arrow")):
            if path in self._open or not set(stages) <= _stages_of(path):
                continue
            try:
                file = open_features(path, wanted)
            except FileNotFoundError:  # removed meanwhile
                continue
            except Damaged as damage:
                self._say(f"{path} is damaged ({damage}), so its features are computed anew.")
                remove_unused(path)
                continue
            except OSError as error:
                self._say(f"{path} can't be read ({error.strerror}), so its features are computed.")
                continue
            if file is not None:
                self._open[path] = file
                files.append(file)
                with suppress(OSError):
                    os.utime(path)  # the time of its last use
        return files

    def close(self, but: Set[str] = frozenset()) -> list[FeatureFile]:
        """Close the files of all prepared files but some, by content digest, so that they may go; returns them."""
        closed = [file for file in self._open.values() if _file_of(file.about.content_digest) not in but]
        for file in closed:
            file.close()
            del self._open[file.path]
        return closed

    @contextmanager
    def sole_writer(self, facts: dict[str, Any], content_digest: str) -> Iterator[bool]:
        """Wait until no other process computes what a set lacks, and keep them from it; lends whether one can write."""
        lease = self._lease(facts, content_digest) if self._is_writable else None
        try:
            yield lease is not None
        finally:
            if lease is not None:
                with suppress(OSError):
                    lease.release()

    def write(
        self,
        facts: dict[str, Any],
        stages: Sequence[int],
        content_digest: str,
        digests: Sequence[bytes],
        batches: Iterator[Batch],
    ) -> bool:
        """Write a file of some images, inside of `sole_writer`; returns whether it was written.

        Args:
            facts: Of the network.
            stages: Of the network, in ascending order.
            content_digest: Of the prepared file.
            digests: Of the images.
            batches: Their features, which are computed as they are asked for.
        """
        set_name = self.set_names.get(_file_of(content_digest), "")
        about = About(facts, tuple(stages), set_name, content_digest, len(digests))
        rows = hashlib.sha256(b"".join(digests)).hexdigest()
        name = f"{_short(content_digest)}-{'.'.join(map(str, stages))}-{_short(rows)}.arrow"
        first = next(batches)
        size_bytes = sum(stage.nbytes for stage in first[1]) // len(first[0]) * len(digests)
        try:
            if not self._make_room(size_bytes, set_name):
                return False
            write_features(self._shelf(facts) / name, about, _joined(itertools.chain([first], batches)))
        except OSError as error:
            self._stop_writing(error)
            return False
        return True

    def _shelf(self, facts: dict[str, Any]) -> Path:
        """The folder of one network."""
        name = re.sub(r"[^\w.-]+", "_", str(facts["network"]))[:60]
        return self.folder / f"{name}-{_short(json.dumps(facts, sort_keys=True))}"

    def _lease(self, facts: dict[str, Any], content_digest: str) -> SoftFileLease | None:
        path = self._shelf(facts) / f"{_short(content_digest)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lease = SoftFileLease(path, lease_duration=_LEASE_S)
            try:
                lease.acquire(timeout=0.5)
            except TimeoutError:
                self._say(f"Another process computes features of {self._name(content_digest)}; this one waits for it.")
                lease.acquire()
        except OSError as error:
            self._stop_writing(error)
            return None
        return lease

    def _make_room(self, size_bytes: int, set_name: str) -> bool:
        """Remove what was used least recently until a file of some size fits; whether it does."""
        files = listed(self.folder)
        over_budget = sum(file.size_bytes for file in files) + size_bytes - self.budget_bytes
        over_disk = size_bytes + _LEFT_FREE_BYTES - shutil.disk_usage(self.folder).free
        needed = max(over_budget, over_disk)
        for file in sorted(files, key=lambda file: file.used) if size_bytes <= self.budget_bytes else []:
            if needed <= 0:
                break
            if file.path not in self._open and remove_unused(file.path):
                needed -= file.size_bytes
        if needed > 0:
            limit = f"budget of {self.budget_bytes / 1e9:.3g} GB" if over_budget >= over_disk else "disk"
            self._say(
                f"The features of {set_name} ({size_bytes / 1e9:.3g} GB) don't fit the {limit} beside those in use, so "
                "they aren't kept. Raise --features-gb, free disk space, or name another --features."
            )
        return needed <= 0

    def _stop_writing(self, error: OSError) -> None:
        self._is_writable = False
        self._say(
            f"{self.folder} takes no features ({error.strerror or error}), so they are computed and not kept. Free "
            "disk space or name another --features; `--features none` keeps none."
        )

    def _name(self, content_digest: str) -> str:
        return self.set_names.get(_file_of(content_digest), f"{content_digest[:12]}…")

    def _say(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._tell(line)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a store.

    Attributes:
        path: Where it lies.
        size_bytes: Its size.
        used: When it was opened last, seconds since 1970.
    """

    path: Path
    size_bytes: int
    used: float


def listed(folder: Path) -> list[StoredFile]:
    """The files of a store."""
    files = []
    for path in sorted(folder.glob("*/*.arrow")):
        with suppress(FileNotFoundError):
            state = path.stat()
            files.append(StoredFile(path, state.st_size, state.st_mtime))
    return files


def _short(text: str) -> str:
    """As part of a file's name: text from a prepared file of somebody else's may be no name at all."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_of(content_digest: str) -> str:
    """The content digest of the prepared file, where it is that of a part of it (`sources.LabelledDeviceSource`)."""
    return content_digest.partition(" ")[0]


def _stages_of(path: Path) -> set[int]:
    match = re.fullmatch(r"\w+-([\d.]+)-\w+", path.stem)
    return set(map(int, match[1].split("."))) if match else set()


def _joined(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same rows in batches of a file's size."""
    held: list[Batch] = []
    size_bytes = 0
    for batch in batches:
        held.append(batch)
        size_bytes += sum(stage.nbytes for stage in batch[1])
        if size_bytes >= _BATCH_BYTES:
            yield _concatenated(held)
            held, size_bytes = [], 0
    if held:
        yield _concatenated(held)


def _concatenated(batches: Sequence[Batch]) -> Batch:
    digests = [digest for batch in batches for digest in batch[0]]
    return digests, [np.concatenate(stages) for stages in zip(*(batch[1] for batch in batches), strict=True)]
