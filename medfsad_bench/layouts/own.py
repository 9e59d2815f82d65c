"""A user's own images: a folder per class, or a table; rasters, DICOM by patient or series, NIfTI with masks."""

from dataclasses import replace
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.raw import (
    DICOM_SUFFIXES,
    RASTER_SUFFIXES,
    RawImage,
    files_below,
    is_volume,
    leads_out,
    read_csv,
    relative_id,
    stem,
)

_CLASSES = ("normal", "anomalous")
_WORDS = {"normal": "normal", "0": "normal", "good": "normal", "anomalous": "anomalous", "1": "anomalous"}


def plain(root: Path) -> list[RawImage] | None:
    """Folders `normal/` and `anomalous/`, at any depth below them, and masks of the same names in `masks/`.

    A group is the PatientID and series of DICOM files, else the image itself. NIfTI volumes become slices; one that is
    anomalous needs a mask, as it holds normal slices too.
    """
    if not all((root / name).is_dir() for name in _CLASSES):
        return None
    files = files_below(root / "masks")
    masks = {stem(path): path for path in files if path.suffix.lower() in RASTER_SUFFIXES or is_volume(path)}
    images = []
    for label in _CLASSES:
        for path in files_below(root / label):
            images += _images(path, root, label, masks.get(stem(path)) if label == "anomalous" else None)
    return _of_one_kind(images, root)


def table(root: Path) -> list[RawImage] | None:
    """A CSV file with the columns `path`, `label` and, if known, `patient` and `mask`; paths are relative to it.

    Raises:
        DownloadError: With the first offending row, if a label is missing or contradicts another, or a path leads out.
    """
    tables = [path for path in sorted(root.glob("*.csv")) if {"path", "label"} <= set(_header(path))]
    if not tables:
        return None
    if len(tables) > 1:
        raise DownloadError(
            f"{root.name}: {tables[0].name} and {tables[1].name} both have the columns path and label. Expected one "
            "table; move the other away."
        )
    images, labels = [], dict[str, str]()
    for number, row in enumerate(read_csv(tables[0], "path", "label"), start=2):
        where = f"{tables[0].name}, line {number}"
        label = _WORDS.get(row["label"].strip().lower())
        if label is None:
            raise DownloadError(f"{where}: the label is {row['label']!r}. Expected normal or anomalous (or 0 or 1).")
        if labels.setdefault(row["path"], label) != label:
            raise DownloadError(
                f"{where}: {row['path']} is {label} here and {labels[row['path']]} above. Mend the table."
            )
        path = _inside(root, row["path"], where)
        mask = _inside(root, row["mask"], where) if (row.get("mask") or "").strip() else None
        images += _images(path, root, label, mask, patient=(row.get("patient") or "").strip())
    return _of_one_kind(images, root)


def _images(path: Path, root: Path, label: str, mask: Path | None, *, patient: str = "") -> list[RawImage]:
    name = relative_id(path, root)
    image = RawImage(name, path, label, patient=patient or name, disease=label, mask=mask)
    if is_volume(path):
        return [replace(image, label="volume" if label == "normal" or mask is not None else "unlabelled")]
    if path.suffix.lower() in DICOM_SUFFIXES or (not path.suffix and _is_dicom(path)):
        series, frames = _series(path)
        image = replace(image, patient=patient or series or name)
        if frames > 1:
            return [replace(image, id=f"{name}#{frame:04d}", frame=frame) for frame in range(frames)]
    return [image]


def _series(path: Path) -> tuple[str, int]:
    """Patient, else series, and number of frames; empty where the file can't be read, which shows later."""
    from medfsad_bench.readers.dicom import read_header

    try:
        header = read_header(path)
        frames = int(header.get("NumberOfFrames", 1) or 1)
    except (DownloadError, ValueError, TypeError):
        return "", 1
    return str(header.get("PatientID", "") or header.get("SeriesInstanceUID", "") or ""), max(1, frames)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _of_one_kind(images: list[RawImage], root: Path) -> list[RawImage]:
    volumes = sum(is_volume(image.path) for image in images)
    if 0 < volumes < len(images):
        raise DownloadError(
            f"{root.name}: {volumes} NIfTI volumes among {len(images)} files. Expected volumes alone or pictures "
            "alone, as one mapping to 8 bits holds for a set; make two folders."
        )
    return images


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return [name.strip().strip('"') for name in file.readline().split(",")]
    except (OSError, UnicodeDecodeError):
        return []


def _inside(root: Path, name: str, where: str) -> Path:
    path = root / name.strip()
    if leads_out(path, root):
        raise DownloadError(f"{where}: {name!r} leads out of {root.name}. Expected a path below the table's folder.")
    return path
