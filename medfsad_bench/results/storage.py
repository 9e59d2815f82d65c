"""How parts of a run get onto a disk and back: whole, one process at a time, told in a paragraph where it fails."""

import errno
import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow
from filelock import FileLock, Timeout
from jaxtyping import Float32, Int64
from pyarrow import parquet

from medfsad_bench.errors import DiskError, ResultsError, StoreError
from medfsad_bench.files import whole
from medfsad_bench.store.format import open_hdf5

_LOCK = ".lock"
MADE_ANEW = "Remove the run's folder, and run its cell or submit its scores again."  # else it is taken as it is
TORN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)  # what reading such arrays raises


class DamagedRunError(ResultsError):
    """A file of a finished run is missing or can't be read.

    Attributes:
        found: What is wrong and where, without the remedy, which is another one for accepted rows.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)  # alone, so that it comes back from another process as it was
        self.found = found

    def __str__(self) -> str:
        return f"{self.found} {MADE_ANEW}"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell in one paragraph that a file of a finished run is missing or damaged.

    Raises:
        DamagedRunError: For whatever reading it in the block raises.
    """
    try:
        yield
    except (*TORN, IndexError) as error:
        why = "there is none" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise DamagedRunError(f"{path} can't be read ({why}).") from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell in one paragraph that a disk is full, a folder read-only or no folder at all.

    Args:
        folder: What is written to in the block.

    Raises:
        DiskError: For any `OSError` in the block, and any `RuntimeError`, HDF5's other word for a full disk.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DiskError(
            f"{folder}: can't be written ({reason}). Expected a folder that takes files, on a disk with room: make "
            "room, or name another --runs. What was finished is kept; the same command goes on from there."
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it; those that ask for it wait.

    Raises:
        DiskError: If it can't be made or written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process has the folder to itself; none has one that isn't there."""
    path = folder / _LOCK
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, whole or not at all."""
    packed = io.BytesIO()  # a ZIP file that a full disk cuts short complains once more when it is thrown away
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes the names for options
    with whole(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name, as `write_arrays` wrote them; a damaged file raises one of `TORN`."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # it leaves a damaged file open
        return {name: file[name] for name in file.files}


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet file, whole or not at all, small: of a short table the usual descriptions are half.

    Bytes of scores are kept by their place, which packs them best.
    """
    scores = [str(name) for name in table if pd.api.types.is_float_dtype(table[name])]
    with whole(path) as temporary:
        parquet.write_table(
            pyarrow.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None),
            temporary,
            compression="zstd",
            compression_level=12,
            use_dictionary=[str(name) for name in table if name not in scores],
            column_encoding=dict.fromkeys(scores, "BYTE_STREAM_SPLIT"),
            write_statistics=False,
            store_schema=False,
        )


def read_table(path: Path, needed: set[str]) -> pd.DataFrame:
    """A Parquet file that has at least the columns `needed`.

    Raises:
        DamagedRunError: If it's missing, can't be read or lacks one.
    """
    with readable(path):
        table = pd.read_parquet(path)
    if missing := sorted(needed - set(table.columns)):
        raise DamagedRunError(f"{path}: column(s) {', '.join(missing)} missing.")
    return table


def write_maps(path: Path, draw: int, maps: Float32[np.ndarray, "n s s"], rows: Int64[np.ndarray, " n"]) -> None:
    """Write the maps of one draw, whole or not at all; `rows` are those of the queries."""
    with whole(path) as temporary, _hdf5_in_memory(temporary) as file:
        chunk = (1, *maps.shape[1:])
        file.create_dataset(_dataset_of(draw), data=maps, chunks=chunk, compression="gzip", shuffle=True)
        file.create_dataset("rows", data=rows)


def join_maps(path: Path, parts: Sequence[Path]) -> None:
    """Make one file of the maps of all draws, whole or not at all.

    Args:
        path: Of the file.
        parts: Files of the draws, in their order, as `write_maps` wrote them.

    Raises:
        OSError: If the disk hasn't room for it, which is asked first: HDF5 may crash a process that finds out later.
    """
    needed = sum(part.stat().st_size for part in parts)
    if shutil.disk_usage(path.parent).free < 1.1 * needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with whole(path) as temporary, h5py.File(temporary, "w") as file:
        for draw, part in enumerate(parts):
            with open_hdf5(part) as maps:
                for name in [_dataset_of(draw), *([] if draw else ["rows"])]:
                    maps.copy(name, file)


def has_maps(path: Path, draw: int) -> bool:
    """Whether a file is there, whole, and holds the maps of a draw."""
    try:
        with open_hdf5(path) as file:
            return _dataset_of(draw) in file
    except (OSError, StoreError):
        return False


def read_maps(path: Path, draw: int, rows: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m s s"]:
    """Maps of some queries in a draw.

    Raises:
        OSError, KeyError: If they aren't there.
    """
    with open_hdf5(path) as file:
        position = {int(row): index for index, row in enumerate(file["rows"][:])}
        return np.stack([file[_dataset_of(draw)][position[int(row)]] for row in rows])


@contextmanager
def _hdf5_in_memory(path: Path) -> Iterator[h5py.File]:
    """Lend an HDF5 file that is written to `path` at the end, in one go.

    HDF5 itself may crash the process later on if the disk is full when it closes a file.
    """
    with h5py.File(path, "w", driver="core", backing_store=False, block_size=2**24) as file:
        yield file
        file.flush()
        path.write_bytes(file.id.get_file_image())


def _dataset_of(draw: int) -> str:
    return f"draw{draw:02d}"
