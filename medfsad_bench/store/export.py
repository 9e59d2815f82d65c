"""`medfsad export`: a prepared file's content in forms that other tools read.

An image's id comes from a file's name. So in a CSV file a text that a spreadsheet would run is written behind an
apostrophe (`medfsad_bench.files.shown_cell`), and as a file's name an id leads nowhere and stands for one image.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from medfsad_bench.errors import StoreError
from medfsad_bench.files import shown_cell, whole, whole_folder, write_json
from medfsad_bench.manifest import ids_digest
from medfsad_bench.store import Dataset
from medfsad_bench.store.croissant import FIELDS, croissant

_LONGEST_STEM = 200  # of a file's name; file systems take 255 bytes


def export_table(dataset: Dataset, path: Path) -> int:
    """Write the whole table (ids, groups, labels, splits, files) as CSV; returns its rows."""
    _write_table(path, dataset.table)
    return len(dataset.table)


def export_ids(dataset: Dataset, path: Path) -> str:
    """Write the membership as a manifest's id list; returns the digest to state beside it."""
    table = dataset.table.assign(label=dataset.table["label"].map({0: "normal", 1: "anomalous"}))
    rows = table[["id", "group", "split", "sha256", "label"]].astype(str).sort_values("id")
    _write_table(path, rows)
    return ids_digest(zip(rows["id"], rows["group"], rows["split"], strict=True))


def export_croissant(dataset: Dataset, folder: Path) -> int:
    """Write images and masks as `export_png` does, `images.csv` and `croissant.json`; returns the images written.

    Raises:
        StoreError: If the folder isn't empty.
    """
    with _new_folder(folder) as growing:
        _write_png(dataset, growing)
        table = dataset.table.copy()
        kinds, names = table["label"].map({0: "normal", 1: "anomalous"}), _file_names(table["id"])
        paths = (f"{split}/{kind}/{name}" for split, kind, name in zip(table["split"], kinds, names, strict=True))
        table["image"] = list(paths)
        table["mask"] = [f"masks/{name}" if has else "" for name, has in zip(names, dataset.has_mask(), strict=True)]
        path = growing / "images.csv"
        _write_table(path, table[list(FIELDS)])
        write_json(growing / "croissant.json", croissant(dataset, path))
    return len(table)


def export_episodes(dataset: Dataset, path: Path) -> int:
    """Write what to score for `medfsad submit`, as CSV; returns the lines written.

    `membership_digest,role,draw,position,id`: the supports of every draw in their order (K shots are the first K), then
    the queries, which are the same in every draw.
    """
    digest, ids = dataset.attributes["membership_digest"], dataset.table["id"].astype(str).to_numpy()
    rows = [
        (digest, "support", str(draw), str(position), ids[index])
        for draw, supports in enumerate(dataset.episodes)
        for position, index in enumerate(supports)
    ]
    rows += [(digest, "query", "", "", ids[index]) for index in dataset.indices("test")]
    _write_table(path, pd.DataFrame(rows, columns=["membership_digest", "role", "draw", "position", "id"]))
    return len(rows)


def export_png(dataset: Dataset, folder: Path) -> int:
    """Write images and masks as `<split>/<normal|anomalous>/<id>.png` and `masks/<id>.png`; returns the images written.

    Raises:
        StoreError: If the folder isn't empty.
    """
    with _new_folder(folder) as growing:
        _write_png(dataset, growing)
    return len(dataset.table)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"--out {folder} isn't an empty folder. Expected a new one for the PNG files; choose another.")
    with whole_folder(folder) as growing:
        yield growing


def _write_png(dataset: Dataset, folder: Path) -> None:
    from PIL import Image

    masked = dataset.has_mask()
    for index, (row, name) in enumerate(zip(dataset.table.itertuples(), _file_names(dataset.table["id"]), strict=True)):
        kind = folder / str(row.split) / ("anomalous" if row.label else "normal")
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(dataset.images(np.array([index]))[0])).save(kind / name)
        if masked[index]:
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(dataset.mask(index).astype(np.uint8) * 255).save(folder / "masks" / name)


def _file_names(ids: Iterable[str]) -> list[str]:
    """A file's name per id: a slash in one would lead out of the folder, and `a/b` isn't `a_b`, nor `A` `a`."""
    safe = ["".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in id_) for id_ in ids]
    stems = [(stem.lstrip(".") or "_")[:_LONGEST_STEM] for stem in safe]
    count = Counter(stem.casefold() for stem in stems)
    return [
        f"{stem}.png" if count[stem.casefold()] == 1 else f"{stem}-{hashlib.sha256(id_.encode()).hexdigest()[:8]}.png"
        for stem, id_ in zip(stems, ids, strict=True)
    ]


def _write_table(path: Path, table: pd.DataFrame) -> None:
    if path.is_dir():
        raise StoreError(f"--out {path} is a folder. Expected the name of a CSV file to write.")
    with whole(path) as temporary:
        shown = table.copy()
        for name, column in table.items():
            if column.dtype.kind in "OTU":
                shown[name] = column.map(shown_cell)
        # A carriage return ends a line for many readers, and the csv module doesn't put it in quotes by itself.
        has_return = any("\r" in cell for row in shown.itertuples(index=False) for cell in row if isinstance(cell, str))
        style: Literal[0, 1] = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
        shown.to_csv(temporary, index=False, lineterminator="\n", quoting=style)
