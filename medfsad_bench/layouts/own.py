"""A user's own images: a folder per class, or a table; rasters, DICOM by patient or series, NIfTI with masks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.class_folders import class_folders
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

WORDS = {"normal": "normal", "0": "normal", "good": "normal", "anomalous": "anomalous", "1": "anomalous"}
COLUMNS = {"path": "path", "label": "label", "patient": "patient", "mask": "mask"}


def plain(root: Path) -> list[RawImage] | None:
    """Folders `normal/` and `anomalous/` or their synonyms, and masks of the same names in `masks/`: `class_images`."""
    folders = class_folders(root)
    if "normal" not in folders or "anomalous" not in folders:
        return None
    return class_images(folders, folders.get("masks"))


def class_images(folders: Mapping[str, Path], masks_folder: Path | None) -> list[RawImage]:
    """Images at any depth below one folder per class; the id begins with the class, whatever its folder is called.

    A group is the PatientID and series of DICOM files, else the image itself. NIfTI volumes become slices; one that is
    anomalous needs a mask, as it holds normal slices too.

    Args:
        folders: Of `normal` and of `anomalous` images.
        masks_folder: Of masks with the names of the anomalous images.

    Raises:
        DownloadError: If volumes and pictures are mixed.
    """
    files = files_below(masks_folder) if masks_folder else []
    masks = {stem(path): path for path in files if path.suffix.lower() in RASTER_SUFFIXES or is_volume(path)}
    images = []
    for label in ("normal", "anomalous"):
        for path in files_below(folders[label]):
            name = f"{label}/{relative_id(path, folders[label])}"
            images += _images(path, name, label, masks.get(stem(path)) if label == "anomalous" else None)
    return _of_one_kind(images, folders["normal"].parent)


def table(root: Path) -> list[RawImage] | None:
    """A CSV file with the columns `path`, `label` and, if known, `patient` and `mask`; paths are relative to it."""
    return table_images(root, COLUMNS, WORDS)


def table_images(root: Path, columns: Mapping[str, str], words: Mapping[str, str]) -> list[RawImage] | None:
    """Images of the one table in a folder that has the columns of path and label; None if there is none.

    Args:
        root: The folder.
        columns: The table's names for `path`, `label`, `patient` and `mask`.
        words: Class (`normal` or `anomalous`) by the table's word for it, in lower case; that of `*` holds for all
            others.

    Raises:
        DownloadError: With the first offending row, if a label is missing or contradicts another, or a path leads out.
    """
    needed = (columns["path"], columns["label"])
    tables = [path for path in sorted(root.glob("*.csv")) if set(needed) <= set(_header(path))]
    if not tables:
        return None
    if len(tables) > 1:
        raise DownloadError(
            f"{root.name}: {tables[0].name} and {tables[1].name} both have the columns {needed[0]} and {needed[1]}. "
            "Expected one table; move the other away."
        )
    images, labels = [], dict[str, str]()
    for number, row in enumerate(read_csv(tables[0], *needed), start=2):
        where = f"{tables[0].name}, line {number}"
        file, word = row[columns["path"]], row[columns["label"]].strip().lower()
        label = words.get(word, words.get("*")) if word else None
        if label is None:
            raise DownloadError(
                f"{where}: the label is {row[columns['label']]!r}. Expected {_wanted(words)}; `--label normal=WORD` "
                "and `--label anomalous=WORD` tell what other words mean."
            )
        if labels.setdefault(file, label) != label:
            raise DownloadError(f"{where}: {file} is {label} here and {labels[file]} above. Mend the table.")
        path = _inside(root, file, where)
        mask_name = (row.get(columns["mask"]) or "").strip()
        mask = _inside(root, mask_name, where) if mask_name else None
        patient = (row.get(columns["patient"]) or "").strip()
        images += _images(path, relative_id(path, root), label, mask, patient=patient)
    return _of_one_kind(images, root)


def _wanted(words: Mapping[str, str]) -> str:
    by_class = {label: [word for word in words if words[word] == label] for label in ("normal", "anomalous")}
    return " or ".join(f"{', '.join(known)} ({label})" for label, known in by_class.items() if known)


def _images(path: Path, name: str, label: str, mask: Path | None, *, patient: str = "") -> list[RawImage]:
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
