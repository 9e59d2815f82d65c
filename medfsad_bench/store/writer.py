"""Writing a prepared file: under a temporary name, proven against where its pixels came from, sealed, then moved."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import UInt8

from medfsad_bench.errors import StoreError
from medfsad_bench.files import whole, write_advice
from medfsad_bench.store.format import NUMBER_COLUMNS, SCHEMA, TEXT_COLUMNS
from medfsad_bench.store.integrity import (
    SEAL_BYTES,
    Pixels,
    content_digest,
    content_faults,
    membership_digest,
    seal_faults,
    seal_line,
)

_LEVEL = 1  # of gzip: pictures come out no larger than with 4, in two thirds of the time
_STORED = {"compression": "gzip", "compression_opts": _LEVEL, "shuffle": True}


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


@dataclass(frozen=True, slots=True)
class Packed:
    """An image and its mask as the file stores them.

    Attributes:
        image: Its bytes, see `packed_chunk`.
        mask: The mask's; None where it has none.
        mask_shape: Height and width of the mask.
    """

    image: bytes
    mask: bytes | None = None
    mask_shape: tuple[int, int] = (0, 0)


Chunks = Callable[[int], Packed | None]


def store_name(header: StoreHeader) -> str:
    """File name of a prepared set; what isn't the benchmark says so in its name."""
    marks = "".join(f"-{fault}" for fault in header.allowed)
    return f"{header.name}-{header.version}{marks}-{header.size_px}px.h5"


def packed_chunk(image: UInt8[np.ndarray, "..."]) -> bytes:
    """An image as HDF5's gzip filter stores it; the shuffle filter changes nothing where a value is one byte."""
    return zlib.compress(np.ascontiguousarray(image).data, _LEVEL)


def write_store(
    path: Path,
    header: StoreHeader,
    table: pd.DataFrame,
    episodes: Sequence[Sequence[int]],
    pixels: Pixels,
    *,
    chunks: Chunks = lambda _: None,
    workers: int = 1,
) -> None:
    """Write a prepared set, whole and checked or not at all.

    Args:
        path: The final name.
        header: Its attributes.
        table: One row per image with the columns of schema 1, in the order of the images.
        episodes: Per draw the indices of the supports.
        pixels: Image (h, w, 1|3) and mask of a row; may be called from another thread.
        chunks: The same image and mask, packed, where somebody has them already; else None.
        workers: With two or more, what was written is read back while its digest is made from `pixels`.

    Raises:
        StoreError: If the disk is full or what was written doesn't verify.
    """
    try:
        with whole(path) as temporary:
            with h5py.File(temporary, "w", libver="v110", userblock_size=SEAL_BYTES) as file:
                for number, draw in enumerate(episodes):
                    file.create_dataset(f"episodes/draw{number:02d}", data=np.asarray(draw, np.int64))
                for name in TEXT_COLUMNS:
                    text = table[name].astype(str).tolist()
                    file.create_dataset(f"table/{name}", data=text, dtype=h5py.string_dtype())
                for name, dtype in NUMBER_COLUMNS.items():
                    file.create_dataset(f"table/{name}", data=table[name].to_numpy(dtype))
                _write_images(file, len(table), header.size_px, pixels, chunks)
                named = asdict(header)
                extra, allowed = named.pop("extra"), json.dumps(sorted(header.allowed))
                file.attrs.update({"schema": SCHEMA, **named, "allowed": allowed, **extra})
                file.attrs["membership_digest"] = membership_digest(table, episodes)
            expected, written = _digests(temporary, pixels, workers)
            with h5py.File(temporary, "r+") as file:
                file.attrs["content_digest"] = expected
            _seal(temporary)
            if faults := seal_faults(temporary) or content_faults(temporary, digest=written):
                raise StoreError(
                    f"{path.name}: what was written doesn't verify ({'; '.join(faults)}). Prepare it again."
                )
    except OSError as error:
        raise StoreError(f"{path}: can't be written ({error}). {write_advice(error)}") from error
    except RuntimeError as error:  # HDF5's for a full disk, where the file is closed
        raise StoreError(f"{path}: can't be written ({error}). Free disk space or choose another --out.") from error


def _digests(path: Path, pixels: Pixels, workers: int) -> tuple[str, str]:
    """The content's digest from where the pixels came from, and from the file."""
    with h5py.File(path) as file, ThreadPoolExecutor(1) as other:
        if workers < 2:
            return content_digest(file, pixels), content_digest(file)
        expected = other.submit(content_digest, file, pixels)
        written = content_digest(file)
        return expected.result(), written


def _write_images(file: h5py.File, count: int, size_px: int, pixels: Pixels, chunks: Chunks) -> None:
    channels = pixels(0)[0].shape[2]
    shape = (size_px, size_px, channels)
    images = file.create_dataset("images", (count, *shape), np.uint8, chunks=(1, *shape), **_STORED)
    masks = file.create_group("masks")
    for index in range(count):
        packed = chunks(index) or _packed(*pixels(index))
        images.id.write_direct_chunk((index, 0, 0, 0), packed.image)
        if packed.mask is not None:
            mask = masks.create_dataset(str(index), packed.mask_shape, np.uint8, chunks=packed.mask_shape, **_STORED)
            mask.id.write_direct_chunk((0, 0), packed.mask)


def _packed(image: UInt8[np.ndarray, "h w c"], mask: UInt8[np.ndarray, "mh mw"] | None) -> Packed:
    if mask is None:
        return Packed(packed_chunk(image))
    return Packed(packed_chunk(image), packed_chunk(mask), (mask.shape[0], mask.shape[1]))


def _seal(path: Path) -> None:
    """Put the digest of all that follows into the file's first bytes."""
    with path.open("r+b") as file:
        file.seek(SEAL_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(seal_line(digest))
