"""Contact sheets: a prepared set at a glance, so that a wrong window or a swapped label is seen, not searched for."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from medfsad_bench.files import whole
from medfsad_bench.store import Dataset

_TILE, _GAP, _TITLE, _COLUMNS = 112, 4, 22, 10
_CELL = 380
_ROWS = (("train", 0, "train, normal"), ("test", 0, "test, normal"), ("test", 1, "test, anomalous"))


def write_contact_sheet(dataset: Dataset, path: Path) -> None:
    """Write a PNG with up to 20 images each of training normals, test normals and test anomalous images.

    Images are taken at even steps through the file; the outline of the localisation truth is drawn in red.
    """
    bands = [_band(dataset, split, label, title) for split, label, title in _ROWS]
    width = max(band.width for band in bands)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands)), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    with whole(path) as temporary:
        sheet.save(temporary)


def write_offenders(groups: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "h w 3"]]]], path: Path) -> None:
    """Write a PNG with the images of each finding side by side, its text beneath.

    Args:
        groups: Per finding its text and its images.
        path: Of the sheet.
    """
    font = ImageFont.load_default(11)
    cells = []
    for text, images in groups:
        width = max(_CELL, len(images) * (_TILE + _GAP) + _GAP)
        cell = Image.new("RGB", (width, _TILE + 3 * _GAP + 3 * 16), "white")
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.BILINEAR)
            cell.paste(tile, (_GAP + column * (_TILE + _GAP), _GAP))
        lines = textwrap.wrap(text, width // 6)[:3]
        ImageDraw.Draw(cell).multiline_text((_GAP, _TILE + 2 * _GAP), "\n".join(lines), fill="black", font=font)
        cells.append(cell)
    columns = min(3, len(cells))
    width = max(cell.width for cell in cells)
    height = cells[0].height
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    with whole(path) as temporary:
        sheet.save(temporary)


def outline(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask's pixels that touch a pixel outside it (4-neighbourhood)."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _band(dataset: Dataset, split: str, label: int, title: str) -> Image.Image:
    table = dataset.table
    rows = np.flatnonzero(((table["split"] == split) & (table["label"] == label)).to_numpy())
    picked = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 2 * _COLUMNS)).astype(int))]
    lines = max(1, -(-len(picked) // _COLUMNS))
    size = (_COLUMNS * (_TILE + _GAP) + _GAP, _TITLE + lines * (_TILE + _GAP))
    band = Image.new("RGB", size, "white")
    groups = table["group"].iloc[rows].nunique()
    text = f"{dataset.name}: {title}: {len(rows)} images of {groups} groups"
    ImageDraw.Draw(band).text((_GAP, 3), text, fill="black", font=ImageFont.load_default(13))
    for position, (index, image) in enumerate(zip(picked, dataset.images(picked), strict=True)):
        left = _GAP + position % _COLUMNS * (_TILE + _GAP)
        band.paste(_tile(image, dataset.mask(int(index))), (left, _TITLE + position // _COLUMNS * (_TILE + _GAP)))
    return band


def _tile(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "mh mw"]) -> Image.Image:
    tile = np.array(Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.BILINEAR))
    if mask.any():
        small = np.array(Image.fromarray(mask).resize((_TILE, _TILE), Image.Resampling.NEAREST))
        tile[outline(small)] = (255, 40, 40)
    return Image.fromarray(tile)
