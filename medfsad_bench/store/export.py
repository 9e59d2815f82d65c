"""`medfsad export`: a prepared file's content in forms that other tools read."""

from pathlib import Path

import numpy as np
import pandas as pd

from medfsad_bench.errors import StoreError
from medfsad_bench.files import whole, whole_folder, write_json
from medfsad_bench.manifest import ids_digest
from medfsad_bench.store import Dataset
from medfsad_bench.store.croissant import FIELDS, croissant


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
    count = export_png(dataset, folder)
    table = dataset.table.copy()
    kinds = table["label"].map({0: "normal", 1: "anomalous"})
    names = [f"{_safe(str(name))}.png" for name in table["id"]]
    table["image"] = [f"{split}/{kind}/{name}" for split, kind, name in zip(table["split"], kinds, names, strict=True)]
    table["mask"] = [f"masks/{name}" if has else "" for name, has in zip(names, dataset.has_mask(), strict=True)]
    path = folder / "images.csv"
    _write_table(path, table[list(FIELDS)])
    write_json(folder / "croissant.json", croissant(dataset, path))
    return count


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
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"--out {folder} isn't an empty folder. Expected a new one for the PNG files; choose another.")
    from PIL import Image

    masked = dataset.has_mask()
    with whole_folder(folder) as growing:
        for index, row in enumerate(dataset.table.itertuples()):
            name = f"{_safe(str(row.id))}.png"
            kind = growing / str(row.split) / ("anomalous" if row.label else "normal")
            kind.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.squeeze(dataset.images(np.array([index]))[0])).save(kind / name)
            if masked[index]:
                (growing / "masks").mkdir(exist_ok=True)
                Image.fromarray(dataset.mask(index).astype(np.uint8) * 255).save(growing / "masks" / name)
    return len(dataset.table)


def _safe(image_id: str) -> str:
    """An id as one file name: a slash in it would lead out of the folder."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in image_id).lstrip(".") or "_"


def _write_table(path: Path, table: pd.DataFrame) -> None:
    if path.is_dir():
        raise StoreError(f"--out {path} is a folder. Expected the name of a CSV file to write.")
    with whole(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
