"""Layouts of histology patches."""

import re
from pathlib import Path
from typing import Literal

from medfsad_bench.layouts.raw import RawImage, rasters, relative_id

_SLIDE = re.compile(r"^(?:\w*?)((?:normal|tumor|test)_\d{3})_(\d+)_(\d+)$", re.IGNORECASE)


def slide_of(name: str) -> str:
    """The slide in a patch's name, in lower case; empty if there's none.

    >>> slide_of("normal_001_62656_108672")
    'normal_001'
    """
    match = _SLIDE.match(name)
    return match[1].lower() if match else ""


def camelyon_patches(root: Path) -> list[RawImage] | None:
    """Camelyon16 patches as BMAD distributes them.

    The slide is the first part of the name (`normal_001_62656_108672`: slide, x, y). `normal_*` slides are for
    training, `test_*` slides for testing.
    """
    files = bmad_files(root)
    if not any(slide_of(path.stem) for side, _, path in files if side == "train"):
        return None  # another set in BMAD's form
    images = []
    for side, label, path in files:
        slide = slide_of(path.stem) or relative_id(path, root)
        images.append(
            RawImage(
                id=path.stem,
                path=path,
                label=label,
                patient=slide,
                disease="metastasis" if label == "Ungood" else "",
                split=_camelyon_side(slide, side),
            )
        )
    return images


def bmad_files(root: Path) -> list[tuple[str, str, Path]]:
    """Side, label and path of the images in BMAD's form; empty if the folder isn't of it.

    The form: `train/good`, `{valid,test}/{good,Ungood}`, each with or without `img`.
    """
    if not (root / "train" / "good").is_dir() or not (root / "test" / "Ungood").is_dir():
        return []
    folders = [("train", "good"), *((side, label) for side in ("valid", "test") for label in ("good", "Ungood"))]
    return [
        (side, label, path)
        for side, label in folders
        for path in rasters(root / side / label / "img") or rasters(root / side / label)
    ]


def lc25000_lung(root: Path) -> list[RawImage] | None:
    """LC25000's lung part: `lung_image_sets/{lung_n,lung_aca}`; 250 original tiles a class, each in altered copies."""
    base = root / "lung_image_sets" if (root / "lung_image_sets").is_dir() else root
    if not (base / "lung_n").is_dir() or not (base / "lung_aca").is_dir():
        return None
    return [
        RawImage(id=path.stem, path=path, label=label, patient=path.stem, disease=label)
        for label in ("lung_n", "lung_aca")
        for path in rasters(base / label)
    ]


def _camelyon_side(slide: str, side: str) -> Literal["train", "test"]:
    if slide.startswith(("normal_", "tumor_")):
        return "train"
    return "test" if slide.startswith("test_") or side != "train" else "train"
