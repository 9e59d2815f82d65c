"""The prepared file, read on demand: schema 1 in HDF5.

    /images            uint8 (n, h, w, 1|3), one image per chunk
    /masks/<index>     uint8 (h, w) at the original resolution, for images that have a localisation truth
    /table/<column>    one value per image
    /episodes/drawNN   indices into the images: up to 64 supports, one per group; K shots are the first K

How its bytes are proven: `medfsad_bench.store.integrity`.
"""

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
TEXT_COLUMNS = ("id", "patient", "group", "disease", "split", "path", "sha256", "window", "transfer_syntax", "warnings")
NUMBER_COLUMNS = {"label": np.uint8, "height": np.int32, "width": np.int32, "spacing_row_mm": np.float64}
NUMBER_COLUMNS |= {"spacing_column_mm": np.float64}


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

    @property
    def anomalous_test(self) -> Int64[np.ndarray, " n"]:
        """Rows of anomalous test images."""
        test = self.indices("test")
        return test[self.table["label"].to_numpy(bool)[test]]

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


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
