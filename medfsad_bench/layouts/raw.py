"""One image of a raw download, before anything was read from it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medfsad_bench.layouts.walk import walk

RASTER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

Side = Literal["", "train", "test"]


@dataclass(frozen=True, slots=True)
class Box:
    """A bounding box in pixels of the original image; `x` counts columns from the left, `y` rows from the top."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class RawImage:
    """Where an image lies and what names and tables say of it."""

    id: str  # unique in the set and the same in every copy of the download
    path: Path  # the file with the pixels
    label: str  # the download's own class name; the manifest says which are normal
    patient: str  # patient, slide or eye pair as the download names it; the id where it names none
    disease: str = ""  # what to break results down by; the class name unless the download says more
    split: Side = ""  # where the download itself fixes the side (Camelyon16's slides), else empty
    slice_index: int | None = None  # axial slice of a volume
    masks: tuple[Path, ...] = ()  # files with the localisation truth, which are united
    boxes: tuple[Box, ...] = ()  # localisation truth as boxes
    frame: int = 0  # of a multi-frame DICOM file, and of its masks
    frames: int = 1  # that the file holds
    region: tuple[int, int, int] | None = None  # left, top, edge of a slide's patch, in pixels of level 0


def rasters(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; empty if there's no such folder or nobody may look into it."""
    return [path for path in walk(folder, depth=1).files if path.suffix.lower() in RASTER_SUFFIXES]


def files_below(folder: Path) -> list[Path]:
    """All files below `folder`, sorted; what `walk` can't take is left out."""
    return walk(folder).files


def is_volume(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path ends outside of `root` once links are followed."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))  # a link to itself ends where it is


def stem(path: Path) -> str:
    """The file's name without its suffix; `.nii.gz` counts as one, and the last number of a DICOM UID as none.

    >>> stem(Path("a/case1.nii.gz")), stem(Path("a/1.2.840.7"))
    ('case1', '1.2.840.7')
    """
    if path.name.lower().endswith(".nii.gz"):
        return path.name[: -len(".nii.gz")]
    return path.name if path.suffix[1:].isdigit() else path.stem


def relative_id(path: Path, root: Path) -> str:
    """The file's place below `root` without its suffix, with forward slashes."""
    return (path.relative_to(root).parent / stem(path)).as_posix()
