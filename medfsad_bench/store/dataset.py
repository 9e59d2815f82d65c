"""The prepared file, read on demand: schema 1 in HDF5.

    /images            uint8 (n, h, w, 1|3), one image per chunk
    /masks/<index>     uint8 (h, w) at the original resolution, for images that have a localisation truth
    /table/<column>    one value per image
    /episodes/drawNN   indices into the images: up to 64 supports, one per group; K shots are the first K

How its bytes are proven: `medfsad_bench.store.integrity`.
"""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, UInt8

from medfsad_bench.errors import StoreError
from medfsad_bench.store.format import LONGEST_TEXT, check_format, open_hdf5, plain_attributes

if TYPE_CHECKING:
    from medfsad_bench.store.torch_data import TorchEpisodes, TorchImages, Transform

_TEXT_ROWS = 64  # read at a time


@dataclass(frozen=True, slots=True)
class Episode:
    """One choice of supports with all queries, as rows of a set.

    Attributes:
        draw: Which choice.
        support: Rows of the K normal images; none shares a group with a query.
        queries: Rows of all test images.
    """

    draw: int
    support: Int64[np.ndarray, " shots"]
    queries: Int64[np.ndarray, " n"]


@dataclass(frozen=True, repr=False)
class Dataset:
    """A prepared set, read on demand."""

    path: Path

    def __post_init__(self) -> None:
        with open_store(self.path) as file:
            object.__setattr__(self, "attributes", plain_attributes(self.path, file))

    attributes: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        facts, counts = self.attributes, []
        for (side, label), rows in self.table.groupby(["split", "label"], sort=True):
            groups = rows["group"].nunique()
            counts.append(f"{side} {'anomalous' if label else 'normal'} {len(rows)} in {groups} groups")
        passed_on = "must not be passed on" if facts.get("licensed", "true") == "true" else "may be passed on"
        return (
            f"Dataset {facts['benchmark']}/{self.name} {facts['version']}, {facts['size_px']} px, {facts['modality']} "
            f"of {facts['organ']}: {', '.join(counts)}; {len(self.episodes)} support draws; masks: "
            f"{facts['mask_kind']}; licence: {self.licence}; {passed_on}; {self.path}"
        )

    @property
    def licence(self) -> str:
        """Of the images, as the set's manifest states it."""
        try:
            return str(tomllib.loads(self.attributes.get("manifest", ""))["licence"])
        except (tomllib.TOMLDecodeError, KeyError):
            return "not stated"

    @property
    def labels(self) -> Bool[np.ndarray, " n"]:
        """Which images are anomalous, in the order of `table`."""
        return self.table["label"].to_numpy(bool)

    @property
    def groups(self) -> np.ndarray:
        """Name of each image's group: images of one group aren't independent."""
        return self.table["group"].to_numpy(str)

    def to_pandas(self) -> pd.DataFrame:
        """A copy of `table`."""
        return self.table.copy()

    @overload
    def to_torch(self, split: str = "train", *, transform: "Transform | None" = None) -> "TorchImages": ...
    @overload
    def to_torch(self, *, shots: int, transform: "Transform | None" = None) -> "TorchEpisodes": ...
    def to_torch(
        self, split: str = "train", *, shots: int | None = None, transform: "Transform | None" = None
    ) -> "TorchImages | TorchEpisodes":
        """The set for PyTorch; both kinds work in a `DataLoader` with workers, forked or spawned.

        Args:
            split: `train` or `test`: images, float32 (3, h, w) in [0, 1], with their labels.
            shots: K; gives episodes in place of images, to be loaded with `batch_size=None`.
            transform: Applied to each image.

        Raises:
            StoreError: If there is no such split, or the set has fewer training groups than K.
        """
        from medfsad_bench.store.torch_data import TorchEpisodes, TorchImages

        if shots is not None:
            return TorchEpisodes(self, shots, transform)
        return TorchImages(self, self.indices(split), transform)

    def episode(self, draw: int, shots: int) -> Episode:
        """The supports of a draw at K shots, and the queries.

        Raises:
            StoreError: If there is no such draw, or fewer training groups than K.
        """
        fewest = min(map(len, self.episodes), default=0)
        if not 0 <= draw < len(self.episodes):
            raise StoreError(f"{self.path}: there is no draw {draw}. Expected one of 0 to {len(self.episodes) - 1}.")
        if not 1 <= shots <= fewest:
            raise StoreError(
                f"{self.path}: {shots} shots can't be had. Expected 1 to {fewest}: a draw takes one image of a group."
            )
        return Episode(draw, self.episodes[draw][:shots], self.indices("test"))

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
        """Rows of `train` or `test`.

        Raises:
            StoreError: If it is neither.
        """
        if split not in ("train", "test"):
            raise StoreError(f"{self.path}: there is no split {split!r}. Expected train or test.")
        return np.flatnonzero((self.table["split"] == split).to_numpy()).astype(np.int64)

    @property
    def anomalous_test(self) -> Int64[np.ndarray, " n"]:
        """Rows of anomalous test images."""
        test = self.indices("test")
        return test[self.table["label"].to_numpy(bool)[test]]

    def images(self, indices: Int64[np.ndarray, " n"] | str) -> UInt8[np.ndarray, "n h w 3"]:
        """Images in the order of `indices`, or of a split by its name; grey is repeated to three channels."""
        if isinstance(indices, str):
            indices = self.indices(indices)
        with open_store(self.path) as file:
            stored = file["images"]
            out = np.empty((len(indices), *stored.shape[1:3], 3), np.uint8)
            for row, index in enumerate(indices):
                out[row] = stored[index]
        return out

    def mask(self, index: int) -> Bool[np.ndarray, "h w"]:
        """Localisation truth at the original resolution; all False for an image without an anomaly.

        Raises:
            StoreError: If it isn't of the image's size.
        """
        shape = int(self.table["height"][index]), int(self.table["width"][index])
        with open_store(self.path) as file:
            if f"masks/{index}" not in file:
                return np.zeros(shape, bool)
            mask = file[f"masks/{index}"]
            if mask.shape != shape:
                raise StoreError(
                    f"{self.path}: the mask of image {index} is {mask.shape}, its image {shape}. Expected the same "
                    "size; prepare the set again."
                )
            return np.asarray(mask[:], bool)

    def has_mask(self) -> Bool[np.ndarray, " n"]:
        """Which images have a localisation truth stored."""
        with open_store(self.path) as file:
            stored = set(file["masks"]) if "masks" in file else set()
        return np.array([str(index) in stored for index in range(len(self.table))], bool)


@contextmanager
def open_store(path: Path) -> Iterator[h5py.File]:
    """A prepared file, open for reading: the one way to its content.

    Raises:
        StoreError: If it's missing, no HDF5 file, of another schema or form, leads to other files, or is damaged where
            it is read.
    """
    if not path.is_file():
        raise StoreError(f"{path} doesn't exist. Expected a prepared file (*.h5); `medfsad prepare` writes them.")
    try:
        file = open_hdf5(path, check_format)
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"{path} can't be opened as HDF5 ({error}). It is no prepared file or was cut short; remove it and prepare "
            "the set again."
        ) from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError) as error:
            raise StoreError(
                f"{path} can't be read ({error}). It was damaged; `medfsad verify` says where. Remove it and prepare "
                "the set again."
            ) from error


def read_table(file: h5py.File) -> pd.DataFrame:
    """The table of an open file, one row per image.

    Raises:
        StoreError: If it holds what no prepared file has: an endless text, a label beside 0 and 1, an id twice.
    """
    table = pd.DataFrame(
        {
            name: _texts(file, name) if h5py.check_string_dtype(data.dtype) is not None else data[:]
            for name, data in file["table"].items()
        }
    )
    wrong = {
        "label": ~table["label"].isin([0, 1]),
        "split": ~table["split"].isin(["train", "test"]),
        "id": table["id"].duplicated(),
        "height": table["height"] < 1,
        "width": table["width"] < 1,
    }
    for column, rows in wrong.items():
        if rows.any():
            value = str(table.loc[rows, column].iloc[0])[:40]
            raise StoreError(
                f"{file.filename}: {int(rows.sum())} row(s) of its table can't be, first {column} {value!r}. It was "
                "damaged or not written by `medfsad prepare`; remove it and prepare the set again."
            )
    return table


def read_episodes(file: h5py.File) -> list[Int64[np.ndarray, " k"]]:
    """Support indices of every draw.

    Raises:
        StoreError: If one is no image's.
    """
    draws = [file["episodes"][name][:] for name in sorted(file["episodes"])] if "episodes" in file else []
    count = len(file["images"])
    if any(((draw < 0) | (draw >= count)).any() for draw in draws):
        raise StoreError(
            f"{file.filename}: a draw names an image that isn't among its {count}. It was damaged or not written by "
            "`medfsad prepare`; remove it and prepare the set again."
        )
    return draws


def _texts(file: h5py.File, column: str) -> np.ndarray:
    """A column of texts, a few rows at a time: a small file can name one long text in every row."""
    data = file["table"][column]
    parts: list[np.ndarray] = []
    for start in range(0, len(data), _TEXT_ROWS):
        part = data[start : start + _TEXT_ROWS]
        if any(len(value) > LONGEST_TEXT for value in part):
            raise StoreError(
                f"{file.filename}: column {column!r} of its table holds a text of more than {LONGEST_TEXT:,} bytes. It "
                "was not written by `medfsad prepare`; don't use it."
            )
        parts.append(np.array([value.decode("utf-8", "replace") for value in part], object))
    return np.concatenate(parts)
