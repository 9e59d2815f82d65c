"""One file of features: some images of one prepared file as one network sees them, mapped into memory by its readers.

    Arrow IPC file    a column `digest` with the SHA-256 of each image's stored pixels, a column per stage of the
                      network, and in the schema's metadata what the file holds, as JSON
    32 bytes          the SHA-256 of all bytes before them

Rows lie in batches. The system keeps one copy of the bytes for all processes that read them.
"""

import dataclasses
import fcntl
import hashlib
import json
import mmap
import os
import weakref
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from medfsad_bench.files import whole

_SEAL_BYTES = 32
_ABOUT = b"medfsad"
_DIGEST = "digest"

Batch = tuple[Sequence[bytes], Sequence[np.ndarray]]  # digests of n images, and of each stage an array (n, c, h, w)
MappedBatch = tuple[list[bytes], dict[int, pa.FixedShapeTensorArray]]  # the same, mapped, by stage


class Damaged(Exception):
    """A file of features isn't what was written."""


@dataclass(frozen=True, slots=True)
class About:
    """What a file holds.

    Attributes:
        facts: All that the features' bits depend on beside image and stage; see `frozen.facts_of`.
        stages: Of the network, in ascending order.
        set_name: The prepared set's name, for people.
        content_digest: Of the prepared file.
        images: How many rows.
    """

    facts: dict[str, Any]
    stages: tuple[int, ...]
    set_name: str
    content_digest: str
    images: int


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class FeatureFile:
    """A file that is open; until it is closed, or nobody refers to it, no other process removes it.

    Attributes:
        path: Where it lies.
        about: What it holds.
        batches: Of each the images' digests, and an array (n, c, h, w) by stage, which can't be written to.
    """

    path: Path
    about: About
    batches: Sequence[MappedBatch]
    _descriptor: int

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self._descriptor)

    def close(self) -> None:
        """Let others remove it; what is mapped of it stays readable."""
        _unlocked(self._descriptor)


def write_features(path: Path, about: About, batches: Iterable[Batch]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: Of the file.
        about: What it will hold.
        batches: Its rows; arrays are float32 or float16.

    Raises:
        OSError: If it can't be written.
    """
    with whole(path) as temporary:
        with temporary.open("wb") as file:
            _write_batches(file, about, batches)
        with temporary.open("r+b") as file:
            file.write(hashlib.file_digest(file, "sha256").digest())  # at the end, as all before was read


def open_features(path: Path, wanted: Set[bytes] | None = None) -> FeatureFile | None:
    """Map a file and prove it.

    Args:
        path: Of the file.
        wanted: Digests of images; a file that holds none of them isn't proven, and None is returned.

    Raises:
        FileNotFoundError: If it isn't there, or is just being removed.
        Damaged: If a byte was changed, or some are missing.
        OSError: If it can't be read.
    """
    descriptor = _opened(path)
    features = None
    try:
        if not _locked(descriptor, fcntl.LOCK_SH):
            raise FileNotFoundError(path)
        body, seal = _mapped(descriptor)
        about, batches = _read(body)
        if wanted is None or not all(wanted.isdisjoint(digests) for digests, _ in batches):
            if hashlib.sha256(memoryview(body)).digest() != seal:
                raise Damaged("its digest differs")
            features = FeatureFile(path, about, batches, descriptor)
    finally:
        if features is None:
            _unlocked(descriptor)
            os.close(descriptor)
    return features


def read_about(path: Path) -> About:
    """What a file says that it holds, unproven.

    Raises:
        Damaged: If it says nothing.
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        return _read(_mapped(file.fileno())[0])[0]


def remove_unused(path: Path) -> bool:
    """Remove a file, unless a process has it open."""
    try:
        descriptor = _opened(path)
        try:
            is_unused = _locked(descriptor, fcntl.LOCK_EX)
            if is_unused:
                path.unlink()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return is_unused


def _write_batches(file: IO[bytes], about: About, batches: Iterable[Batch]) -> None:
    metadata = {_ABOUT: json.dumps(dataclasses.asdict(about)).encode()}
    writer = None
    for digests, stages in batches:
        arrays = [pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(stage)) for stage in stages]
        columns = [pa.array(digests, pa.binary(_SEAL_BYTES)), *arrays]
        names = [_DIGEST, *map(str, about.stages)]
        batch = pa.RecordBatch.from_arrays(columns, names=names, metadata=metadata)
        writer = writer or pa.ipc.new_file(file, batch.schema)
        writer.write_batch(batch)
    if writer is not None:
        writer.close()


def _mapped(descriptor: int) -> tuple[pa.Buffer, bytes]:
    """All bytes before the seal, and the seal.

    Raises:
        Damaged: If there are none.
    """
    try:
        content = pa.py_buffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    except ValueError as error:
        raise Damaged("it is empty") from error
    end = max(content.size - _SEAL_BYTES, 0)
    return content.slice(0, end), content.slice(end).to_pybytes()


def _read(body: pa.Buffer) -> tuple[About, list[MappedBatch]]:
    """What the bytes mean; only those are read that say so, and the images' digests.

    Raises:
        Damaged: If they mean nothing.
    """
    try:
        reader = pa.ipc.open_file(pa.BufferReader(body))
        stated = json.loads(reader.schema.metadata[_ABOUT])
        about = About(**{**stated, "stages": tuple(stated["stages"])})
        batches = []
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate()
            if not all(isinstance(batch.column(str(stage)), pa.FixedShapeTensorArray) for stage in about.stages):
                raise Damaged("a column holds no features")
            stages = {stage: batch.column(str(stage)) for stage in about.stages}
            batches.append((batch.column(_DIGEST).to_pylist(), stages))
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise Damaged("it can't be read as a file of features") from error
    return about, batches


def _opened(path: Path) -> int:
    """Open for reading, and for writing where that's allowed: NFS takes no other file for a lock of one's own."""
    try:
        return os.open(path, os.O_RDWR)
    except OSError:
        return os.open(path, os.O_RDONLY)


def _locked(descriptor: int, kind: int) -> bool:
    """Whether a lock can be had: shared by those who read, for one alone who removes."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: nothing is in the way of reading, and nothing is removed
        return kind == fcntl.LOCK_SH
    return True


def _unlocked(descriptor: int) -> None:
    """Give a lock back, which would last as long as the mapping: that holds a descriptor of the same open file."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
