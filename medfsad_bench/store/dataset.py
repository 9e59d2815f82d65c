"""The prepared file: schema 1 in HDF5. Written whole or not at all, proven by two digests.

    /images            uint8 (n, h, w, 1|3), one image per chunk
    /masks/<index>     uint8 (h, w) at the original resolution, for images that have a localisation truth
    /table/<column>    one value per image
    /episodes/drawNN   indices into the images: up to 64 supports, one per group; K shots are the first K

Before all that, in the 512 bytes that HDF5 leaves to the user, stands a seal: the SHA-256 of the rest of the file.
`membership_digest` covers ids, labels, groups, splits, episodes and the files' SHA-256, so it is the same wherever
the same images were prepared; `content_digest` adds every stored byte, so it depends on decoder versions too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, UInt8

from medfsad_bench.errors import StoreError

SCHEMA = 1
SEAL_BYTES = 512
_SEAL = b"MEDFSAD seal 1 sha256 "
_HDF5 = b"\x89HDF\r\n\x1a\n"
_DEFLATE_RATIO = 1100  # deflate never packs more than 1,032 bytes into one
TEXT_COLUMNS = ("id", "patient", "group", "disease", "split", "path", "sha256", "window", "transfer_syntax", "warnings")
NUMBER_COLUMNS = {"label": np.uint8, "height": np.int32, "width": np.int32, "spacing_row_mm": np.float64}
NUMBER_COLUMNS |= {"spacing_column_mm": np.float64}
_NOT_DIGESTED = frozenset({"path", "warnings"})  # where the user keeps a download is no property of the data

Pixels = Callable[[int], tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "mh mw"] | None]]


def membership_digest(table: pd.DataFrame, episodes: Sequence[Sequence[int]]) -> str:
    """SHA-256 of what takes part: ids, labels, groups, splits, file digests and episodes; independent of row order."""
    lines = sorted(
        json.dumps([str(row["id"]), int(row["label"]), str(row["group"]), str(row["split"]), str(row["sha256"])])
        for row in table[["id", "label", "group", "split", "sha256"]].to_dict("records")
    )
    ids = table["id"].tolist()
    draws = [json.dumps([str(ids[index]) for index in draw]) for draw in episodes]
    return hashlib.sha256("\n".join([*lines, "episodes", *draws]).encode()).hexdigest()


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


def verify_store(path: Path) -> list[str]:
    """Faults of a prepared file: seal, digests, schema, disjoint groups, episodes. Empty if it is sound.

    Files written before there was a seal are read all the same; theirs is not checked.

    Raises:
        StoreError: If it's missing, or no prepared file at all.
    """
    # A file whose seal is broken may hold bookkeeping that HDF5 never comes to the end of: its content isn't read.
    return seal_faults(path) or content_faults(path)


def content_faults(path: Path, *, digest: str | None = None) -> list[str]:
    """Faults of all but the seal; `digest` of the file's content where it is known already."""
    with open_store(path) as file:
        _refuse_impossible(file, path)
        faults = []
        if (digest or content_digest(file)) != file.attrs["content_digest"]:
            faults.append("the content digest differs: a byte of the data was changed")
        table, episodes = read_table(file), read_episodes(file)
        if membership_digest(table, [draw.tolist() for draw in episodes]) != file.attrs["membership_digest"]:
            faults.append("the membership digest differs: an id, label, group, split or episode was changed")
        if len(table) != len(file["images"]):
            faults.append(f"{len(file['images'])} images but {len(table)} rows in the table")
        return faults + _split_faults(table) + _episode_faults(table, episodes)


def _refuse_impossible(file: h5py.File, path: Path) -> None:
    """A changed byte in a shape can promise more data than there is, and reading it would never end."""
    most = _DEFLATE_RATIO * path.stat().st_size
    for name in _dataset_names(file):
        if max(file[name].size * file[name].dtype.itemsize, *file[name].shape, 0) > most:
            raise StoreError(
                f"{path}: /{name} claims {file[name].shape} values, more than the file can hold. It was damaged; "
                "prepare it again."
            )


def prepared_files(folder: Path) -> list[Path]:
    """Prepared files in a folder, sorted; one that is just being written isn't among them."""
    return sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))


def open_store(path: Path) -> h5py.File:
    """Open a prepared file for reading.

    Raises:
        StoreError: If it's missing, no HDF5 file, or of another schema.
    """
    if not path.is_file():
        raise StoreError(f"{path} doesn't exist. Expected a prepared file (*.h5); `medfsad prepare` writes them.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(
            f"{path} can't be opened as HDF5 ({error}). It is no prepared file or was cut short; prepare it again."
        ) from error
    schema = file.attrs.get("schema")
    if schema is None or int(schema) != SCHEMA:
        file.close()
        raise StoreError(
            f"{path}: schema is {schema if schema is not None else 'absent'}, this version reads schema {SCHEMA}. "
            "Prepare the set again, or install the version that wrote it."
        )
    return file


def read_table(file: h5py.File) -> pd.DataFrame:
    """The table of an open file, one row per image."""
    columns = {}
    for name, data in file["table"].items():
        text = h5py.check_string_dtype(data.dtype) is not None
        columns[name] = data.asstr()[:].astype(object) if text else data[:]
    return pd.DataFrame(columns)


def read_episodes(file: h5py.File) -> list[Int64[np.ndarray, " k"]]:
    """Support indices of every draw."""
    return [file["episodes"][name][:] for name in sorted(file["episodes"])]


@dataclass(frozen=True)
class Dataset:
    """A prepared set, read on demand."""

    path: Path

    def __post_init__(self) -> None:
        with open_store(self.path) as file:
            object.__setattr__(self, "attributes", {key: _plain(value) for key, value in file.attrs.items()})

    attributes: dict[str, Any] = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The set's name."""
        return str(self.attributes["name"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per image: id, patient, group, label, disease, split, file, size, spacing, window, warnings."""
        with open_store(self.path) as file:
            return read_table(file)

    @cached_property
    def episodes(self) -> list[Int64[np.ndarray, " k"]]:
        """Support indices of every draw; K shots are the first K."""
        with open_store(self.path) as file:
            return read_episodes(file)

    @cached_property
    def group_numbers(self) -> Int64[np.ndarray, " n"]:
        """An integer per image that its group's members share."""
        return np.unique(self.table["group"].to_numpy(str), return_inverse=True)[1].astype(np.int64)

    def indices(self, split: str) -> Int64[np.ndarray, " n"]:
        """Rows of `train` or `test`."""
        return np.flatnonzero((self.table["split"] == split).to_numpy()).astype(np.int64)

    def images(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Images in the order of `indices`; grey is repeated to three channels."""
        with open_store(self.path) as file:
            stored = file["images"]
            out = np.empty((len(indices), *stored.shape[1:3], 3), np.uint8)
            for row, index in enumerate(indices):
                out[row] = stored[index]
        return out

    def mask(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Localisation truth at the original resolution; all False for an image without an anomaly."""
        with open_store(self.path) as file:
            if f"masks/{index}" in file:
                return np.asarray(file[f"masks/{index}"][:], bool)
        return np.zeros((int(self.table["height"][index]), int(self.table["width"][index])), bool)

    def has_mask(self) -> Bool[np.ndarray, " n"]:
        """Which images have a localisation truth stored."""
        with open_store(self.path) as file:
            stored = set(file["masks"]) if "masks" in file else set()
        return np.array([str(index) in stored for index in range(len(self.table))], bool)


def seal_line(digest: str) -> bytes:
    """The file's first bytes: what its other bytes' SHA-256 is."""
    return (_SEAL + digest.encode()).ljust(SEAL_BYTES, b"\n")


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


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _blocks(data: h5py.Dataset) -> Iterator[np.ndarray]:
    rows = max(1, 64 if data.ndim > 2 else len(data)) if data.ndim else 1
    for start in range(0, len(data), rows):
        yield data[start : start + rows]


def _content(file: h5py.File, pixels: Pixels | None) -> Iterator[bytes | memoryview]:
    """All that the content's digest covers, piece by piece."""
    for name in sorted(_dataset_names(file)):
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
            yield from (_text_bytes(part) if text else np.ascontiguousarray(part).data for part in _blocks(data))


def _ahead(pieces: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same pieces, each read while the one before is digested: neither needs Python's lock for long."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, pieces, None)
        while (piece := following.result()) is not None:
            following = reader.submit(next, pieces, None)
            yield piece


def _text_bytes(block: np.ndarray) -> bytes:
    return json.dumps([value.decode() for value in block]).encode()


def _split_faults(table: pd.DataFrame) -> list[str]:
    sides = table.groupby("group")["split"].nunique()
    both = sorted(sides.index[sides > 1])
    return [f"{len(both)} group(s) on both sides of the split, first {both[0]!r}"] if both else []


def _episode_faults(table: pd.DataFrame, episodes: Sequence[Int64[np.ndarray, " k"]]) -> list[str]:
    faults = []
    for number, draw in enumerate(episodes):
        rows = table.iloc[draw]
        if (rows["split"] != "train").any() or rows["label"].any():
            faults.append(f"draw {number} holds an image that isn't a training normal")
        if rows["group"].duplicated().any():
            faults.append(f"draw {number} holds two images of one group")
    return faults


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
