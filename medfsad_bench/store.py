"""The prepared file: schema 1 in HDF5. Written whole or not at all, proven by two digests.

    /images            uint8 (n, h, w, 1|3), one image a chunk
    /masks/<index>     uint8 (h, w) at the source's resolution, for images that have a localisation truth
    /table/<column>    one value an image
    /episodes/drawNN   indices into the images: up to 64 supports, one a group; K shots are the first K

Before all that, in the 512 bytes that HDF5 leaves to the user, stands a seal: the SHA-256 of the rest of the file.
`membership_digest` covers ids, labels, groups, splits, episodes and the sources' SHA-256, so it is the same wherever
the same images were prepared; `content_digest` adds every stored byte, so it hangs on decoder versions too.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
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
_SEAL, _SEAL_BYTES = b"MEDFSAD seal 1 sha256 ", 512
_HDF5 = b"\x89HDF\r\n\x1a\n"
_DEFLATE_RATIO = 1100  # deflate never packs more than 1,032 bytes into one
_LEVEL = 4  # of gzip
_TEXT = ("id", "patient", "group", "disease", "split", "path", "sha256", "window", "transfer_syntax", "warnings")
_NUMBERS = {"label": np.uint8, "height": np.int32, "width": np.int32, "spacing_row_mm": np.float64}
_NUMBERS |= {"spacing_column_mm": np.float64}
_NOT_DIGESTED = frozenset({"path", "warnings"})  # where the user keeps a download is no property of the data

Pixels = Callable[[int], tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "mh mw"] | None]]
Chunks = Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """What a prepared file says of itself, as attributes."""

    benchmark: str
    name: str
    version: str
    size_px: int
    manifest: str
    code_version: str
    decoders: str
    mask_kind: str
    allowed: tuple[str, ...] = ()  # faults that --allow let through: the file says so for ever
    extra: Mapping[str, str] = field(default_factory=dict)


def store_name(header: StoreHeader) -> str:
    """File name of a prepared set; what isn't the benchmark says so in its name."""
    marks = "".join(f"-{fault}" for fault in header.allowed)
    return f"{header.name}-{header.version}{marks}-{header.size_px}px.h5"


def write_store(
    path: Path,
    header: StoreHeader,
    table: pd.DataFrame,
    episodes: Sequence[Sequence[int]],
    pixels: Pixels,
    *,
    chunks: Chunks = lambda _: None,
) -> None:
    """Write a prepared set under a temporary name, check it, and move it to `path`.

    Args:
        path: The final name.
        header: Its attributes.
        table: One row an image with the columns of schema 1, in the order of the images.
        episodes: Per draw the indices of the supports.
        pixels: Image (h, w, 1|3) and mask of a row.
        chunks: The same image as `packed_chunk` returns it, where somebody has it already; else None.

    Raises:
        StoreError: If the disk is full or what was written doesn't verify.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w", libver="v110", userblock_size=_SEAL_BYTES) as file:
            for number, draw in enumerate(episodes):
                file.create_dataset(f"episodes/draw{number:02d}", data=np.asarray(draw, np.int64))
            _write_table(file, table)
            written = _write_images(file, len(table), header.size_px, pixels, chunks)
            for key, value in _attributes(header).items():
                file.attrs[key] = value
            file.attrs["membership_digest"] = membership_digest(table, episodes)
            file.attrs["content_digest"] = content_digest(file, images_bytes=written)
        _seal(temporary)
        faults = verify_store(temporary)
        if faults:
            raise StoreError(f"{path.name}: what was written doesn't verify ({'; '.join(faults)}). Prepare it again.")
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # HDF5 has both for a full disk
        raise StoreError(f"{path}: can't be written ({error}). Free disk space or choose another --out.") from error
    finally:
        temporary.unlink(missing_ok=True)


def membership_digest(table: pd.DataFrame, episodes: Sequence[Sequence[int]]) -> str:
    """SHA-256 of what takes part: ids, labels, groups, splits, sources and episodes; independent of row order."""
    lines = sorted(
        json.dumps([str(row["id"]), int(row["label"]), str(row["group"]), str(row["split"]), str(row["sha256"])])
        for row in table[["id", "label", "group", "split", "sha256"]].to_dict("records")
    )
    ids = table["id"].tolist()
    draws = [json.dumps([str(ids[index]) for index in draw]) for draw in episodes]
    return hashlib.sha256("\n".join([*lines, "episodes", *draws]).encode()).hexdigest()


def content_digest(file: h5py.File, *, images_bytes: Callable[[], Iterable[bytes]] | None = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all data sets but the source's path and warnings.

    Args:
        file: Open for reading.
        images_bytes: Where the bytes of `/images` come from instead of the file, image by image.
    """
    digest = hashlib.sha256()
    for name in sorted(_dataset_names(file)):
        if name.rsplit("/", 1)[-1] in _NOT_DIGESTED:
            continue
        data = file[name]
        text = h5py.check_string_dtype(data.dtype) is not None
        digest.update(f"{name} {'text' if text else data.dtype.str} {data.shape}\n".encode())
        if name == "images" and images_bytes is not None:
            for part in images_bytes():
                digest.update(part)
            continue
        for block in _blocks(data):
            digest.update(_text_bytes(block) if text else np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def packed_chunk(image: np.ndarray) -> bytes:
    """An image as HDF5's gzip filter stores it; the shuffle filter changes nothing where a value is one byte."""
    return zlib.compress(np.ascontiguousarray(image).tobytes(), _LEVEL)


def verify_store(path: Path) -> list[str]:
    """Faults of a prepared file: seal, digests, schema, disjoint groups, episodes. Empty if it is sound.

    Files written before there was a seal are read all the same; theirs is not checked.

    Raises:
        StoreError: If it's missing, or no prepared file at all.
    """
    # A file whose seal is broken may hold bookkeeping that HDF5 never comes to the end of: its content isn't read.
    return _seal_faults(path) or _content_faults(path)


def _content_faults(path: Path) -> list[str]:
    with open_store(path) as file:
        _refuse_impossible(file, path)
        faults = []
        if content_digest(file) != file.attrs["content_digest"]:
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
    """The table of an open file, one row an image."""
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
        """One row an image: id, patient, group, label, disease, split, source, size, spacing, window, warnings."""
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
        """Localisation truth at the source's resolution; all False for an image without an anomaly."""
        with open_store(self.path) as file:
            if f"masks/{index}" in file:
                return np.asarray(file[f"masks/{index}"][:], bool)
        return np.zeros((int(self.table["height"][index]), int(self.table["width"][index])), bool)

    def has_mask(self) -> Bool[np.ndarray, " n"]:
        """Which images have a localisation truth stored."""
        with open_store(self.path) as file:
            stored = set(file["masks"]) if "masks" in file else set()
        return np.array([str(index) in stored for index in range(len(self.table))], bool)


def _attributes(header: StoreHeader) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "benchmark": header.benchmark,
        "name": header.name,
        "version": header.version,
        "size_px": header.size_px,
        "manifest": header.manifest,
        "code_version": header.code_version,
        "decoders": header.decoders,
        "mask_kind": header.mask_kind,
        "allowed": json.dumps(sorted(header.allowed)),
        **header.extra,
    }


def _seal(path: Path) -> None:
    """Put the digest of all that follows into the file's first bytes."""
    with path.open("r+b") as file:
        file.seek(_SEAL_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write((_SEAL + digest.encode()).ljust(_SEAL_BYTES, b"\n"))


def _seal_faults(path: Path) -> list[str]:
    if not path.is_file():
        return []  # which `open_store` says better
    with path.open("rb") as file:
        head = file.read(_SEAL_BYTES)
        if head.startswith(_HDF5) or (not head.startswith(_SEAL[:7]) and file.read(len(_HDF5)) != _HDF5):
            return []  # without a seal, or no prepared file
        file.seek(_SEAL_BYTES)
        expected = (_SEAL + hashlib.file_digest(file, "sha256").hexdigest().encode()).ljust(_SEAL_BYTES, b"\n")
    return [] if head == expected else ["the seal is broken: a byte of the file was changed"]


def _write_images(
    file: h5py.File, count: int, size_px: int, pixels: Pixels, chunks: Chunks
) -> Callable[[], Iterable[bytes]]:
    """Write images and masks; returns the images' bytes once more, from where they came and not from the file."""
    first, _ = pixels(0)
    channels = first.shape[2]
    images = file.create_dataset(
        "images",
        (count, size_px, size_px, channels),
        np.uint8,
        chunks=(1, size_px, size_px, channels),
        compression="gzip",
        compression_opts=_LEVEL,
        shuffle=True,
    )
    masks = file.create_group("masks")
    for index in range(count):
        image, mask = pixels(index)
        packed = chunks(index) or packed_chunk(image)
        images.id.write_direct_chunk((index, 0, 0, 0), packed)
        if mask is not None:
            masks.create_dataset(str(index), data=mask, compression="gzip", compression_opts=_LEVEL, chunks=mask.shape)
    return lambda: (np.ascontiguousarray(pixels(index)[0]).tobytes() for index in range(count))


def _write_table(file: h5py.File, table: pd.DataFrame) -> None:
    for name in _TEXT:
        file.create_dataset(f"table/{name}", data=table[name].astype(str).tolist(), dtype=h5py.string_dtype())
    for name, dtype in _NUMBERS.items():
        file.create_dataset(f"table/{name}", data=table[name].to_numpy(dtype))


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _blocks(data: h5py.Dataset) -> Iterable[np.ndarray]:
    rows = max(1, 64 if data.ndim > 2 else len(data)) if data.ndim else 1
    for start in range(0, len(data), rows):
        yield data[start : start + rows]


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
