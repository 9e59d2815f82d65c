"""Proof that a prepared file is what `prepare` wrote: a seal and two digests.

In the 512 bytes that HDF5 leaves to the user stands the seal: the SHA-256 of the rest of the file. `membership_digest`
covers ids, labels, groups, splits, episodes and the SHA-256 of the raw files, so it is the same wherever the same
images were prepared; `content_digest` adds every stored byte, so it depends on decoder versions too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int64, UInt8

from medfsad_bench.store.dataset import open_store, read_episodes, read_table
from medfsad_bench.store.format import dataset_names

SEAL_BYTES = 512
_SEAL = b"MEDFSAD seal 1 sha256 "
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NOT_DIGESTED = frozenset({"path", "warnings"})  # where the user keeps a download is no property of the data

Pixels = Callable[[int], tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "mh mw"] | None]]


def verify_store(path: Path) -> list[str]:
    """Faults of a prepared file: seal, digests, schema, disjoint groups, episodes. Empty if it is sound.

    Files written before there was a seal are read all the same; theirs is not checked.

    Raises:
        StoreError: If it's missing, or no prepared file at all.
    """
    # A file whose seal is broken may hold bookkeeping that HDF5 never comes to the end of: its content isn't read.
    return seal_faults(path) or content_faults(path)


def seal_faults(path: Path) -> list[str]:
    """Whether any byte of the file was changed."""
    if not path.is_file():
        return []  # which `open_store` says better
    with path.open("rb") as file:
        head = file.read(SEAL_BYTES)
        if head.startswith(_HDF5) or (not head.startswith(_SEAL[:7]) and file.read(len(_HDF5)) != _HDF5):
            return []  # without a seal, or no prepared file
        file.seek(SEAL_BYTES)
        expected = seal_line(hashlib.file_digest(file, "sha256").hexdigest())
    return [] if head == expected else ["the seal is broken: a byte of the file was changed"]


def has_seal(path: Path) -> bool:
    """Whether the file begins with a seal, whole or broken; files from before there was one don't."""
    with path.open("rb") as file:
        return file.read(len(_SEAL)) == _SEAL


def seal_line(digest: str) -> bytes:
    """The file's first bytes: what its other bytes' SHA-256 is."""
    return (_SEAL + digest.encode()).ljust(SEAL_BYTES, b"\n")


def content_faults(path: Path, *, digest: str | None = None) -> list[str]:
    """Faults of all but the seal; `digest` of the file's content where it is known already."""
    with open_store(path) as file:
        faults = []
        if (digest or content_digest(file)) != file.attrs["content_digest"]:
            faults.append("the content digest differs: a byte of the data was changed")
        table, episodes = read_table(file), read_episodes(file)
        if membership_digest(table, [draw.tolist() for draw in episodes]) != file.attrs["membership_digest"]:
            faults.append("the membership digest differs: an id, label, group, split or episode was changed")
        if len(table) != len(file["images"]):
            faults.append(f"{len(file['images'])} images but {len(table)} rows in the table")
        return faults + _membership_faults(table, episodes)


def content_digest(file: h5py.File, pixels: Pixels | None = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all data sets but the file's path and warnings.

    Args:
        file: Open for reading.
        pixels: Where the bytes of images and masks come from in place of the file.
    """
    digest = hashlib.sha256()
    for piece in _ahead(_content(file, pixels)):
        digest.update(piece)
    return digest.hexdigest()


def membership_digest(table: pd.DataFrame, episodes: Sequence[Sequence[int]]) -> str:
    """SHA-256 of what takes part: ids, labels, groups, splits, raw files and episodes; independent of row order."""
    lines = sorted(
        json.dumps([str(row["id"]), int(row["label"]), str(row["group"]), str(row["split"]), str(row["sha256"])])
        for row in table[["id", "label", "group", "split", "sha256"]].to_dict("records")
    )
    ids = table["id"].tolist()
    draws = [json.dumps([str(ids[index]) for index in draw]) for draw in episodes]
    return hashlib.sha256("\n".join([*lines, "episodes", *draws]).encode()).hexdigest()


def _membership_faults(table: pd.DataFrame, episodes: Sequence[Int64[np.ndarray, " k"]]) -> list[str]:
    sides = table.groupby("group")["split"].nunique()
    both = sorted(sides.index[sides > 1])
    faults = [f"{len(both)} group(s) on both sides of the split, first {both[0]!r}"] if both else []
    for number, draw in enumerate(episodes):
        rows = table.iloc[draw]
        if (rows["split"] != "train").any() or rows["label"].any():
            faults.append(f"draw {number} holds an image that isn't a training normal")
        if rows["group"].duplicated().any():
            faults.append(f"draw {number} holds two images of one group")
    return faults


def _content(file: h5py.File, pixels: Pixels | None) -> Iterator[bytes | memoryview]:
    """All that the content's digest covers, piece by piece."""
    for name in sorted(dataset_names(file)):
        folder, column = name.rpartition("/")[::2]
        if column in _NOT_DIGESTED:
            continue
        data = file[name]
        text = h5py.check_string_dtype(data.dtype) is not None
        yield f"{name} {'text' if text else data.dtype.str} {data.shape}\n".encode()
        if pixels is not None and name == "images":
            yield from (np.ascontiguousarray(pixels(index)[0]).data for index in range(len(data)))
        elif pixels is not None and folder == "masks" and (mask := pixels(int(column))[1]) is not None:
            yield np.ascontiguousarray(mask).data
        else:
            for block in _blocks(data):
                if text:
                    yield json.dumps([value.decode() for value in block]).encode()
                else:
                    yield np.ascontiguousarray(block).data


def _blocks(data: h5py.Dataset) -> Iterator[np.ndarray]:
    rows = max(1, 64 if data.ndim > 2 else len(data)) if data.ndim else 1
    for start in range(0, len(data), rows):
        yield data[start : start + rows]


def _ahead(pieces: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same pieces, each read while the one before is digested: neither needs Python's lock for long."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, pieces, None)
        while (piece := following.result()) is not None:
            following = reader.submit(next, pieces, None)
            yield piece
