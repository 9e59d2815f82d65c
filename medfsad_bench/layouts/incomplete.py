"""What a folder of no known layout looks like, in words that say what is missing from it."""

import csv
import os
from pathlib import Path

from medfsad_bench.layouts.class_folders import class_folders
from medfsad_bench.layouts.raw import DICOM_SUFFIXES, RASTER_SUFFIXES, is_volume

# By layout what a download holds: the first alone tells it, the rest may have ordinary names.
_SIGNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "brain_tumor": (
        ("Training/notumor", "Testing/notumor", "Training/meningioma", "Testing/meningioma"),
        ("Training/glioma", "Testing/glioma"),
    ),
    "rsna": (("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images"), ()),
    "odir": (("full_df.csv", "preprocessed_images"), ()),
    "lag": (("suspicious_glaucoma", "non_glaucoma"), ()),
    "camelyon_patches": (("test/Ungood", "valid/Ungood"), ("train/good", "test/good")),
    "lc25000_lung": (("lung_image_sets/lung_n", "lung_image_sets/lung_aca"), ()),
    "chest_nih": (("Data_Entry_2017*.csv", "No_findings"), ("images*",)),
}
_LOOKED_AT = 10_000  # files of a folder of no layout, to say what kind they are


def what_is_missing(folder: Path) -> tuple[str, str] | None:
    """The layout that a folder has parts of, and what it lacks; None if it has none.

    Args:
        folder: One of no known layout.
    """
    for layout, (telling, others) in _SIGNS.items():
        present = [sign for sign in telling if any(folder.glob(sign))]
        missing = [sign for sign in (*telling, *others) if not any(folder.glob(sign))]
        if present and missing:
            return layout, f"looks like {layout} (has {', '.join(present)}), but lacks {', '.join(missing)}"
        if present:
            return layout, f"looks like {layout} (has {', '.join(present)}), but without its images"
    return None


def hint(folder: Path) -> str:
    """Why a folder isn't taken, as far as its content tells."""
    classes = class_folders(folder)
    if len(classes) == 1:
        (only,) = classes
        other = "anomalous" if only == "normal" else "normal"
        return f"{classes[only].name}/ without a folder of {other} images"
    for table in sorted(folder.glob("*.csv")):
        columns = _columns(table)
        if len(columns) > 1:
            return f"the table {table.name} has the columns {', '.join(columns[:8])}, not path and label"
    images = 0
    for looked_at, name in enumerate(_names_below(folder)):
        path = Path(name)
        images += path.suffix.lower() in RASTER_SUFFIXES | DICOM_SUFFIXES or is_volume(path)
        if looked_at == _LOOKED_AT:
            break
    return f"{images:,} images without labels" if images else "no known layout"


def _columns(table: Path) -> list[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return next(csv.reader(file), [])
    except (OSError, csv.Error):
        return []


def _names_below(folder: Path) -> list[str]:
    names: list[str] = []
    for _, _, files in os.walk(folder):
        names += files
        if len(names) > _LOOKED_AT:
            break
    return names
