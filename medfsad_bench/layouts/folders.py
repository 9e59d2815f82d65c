"""Layouts in which the folder's name is the label."""

import re
from pathlib import Path

from medfsad_bench.layouts.finding import Content
from medfsad_bench.layouts.raw import RawImage, rasters, relative_id

_BRAIN_CLASSES = ("notumor", "glioma", "meningioma", "pituitary")
_LAG_CLASSES = {
    "non_glaucoma": "non_glaucoma",
    "suspicious_glaucoma": "suspicious_glaucoma",
    "normal": "non_glaucoma",
    "glaucoma": "suspicious_glaucoma",
}
_CHILD_NORMAL = re.compile(r"^(NORMAL2-)?IM-(\d+)")
_CHILD_PNEUMONIA = re.compile(r"^(person\d+)_(bacteria|virus)")


def brain_tumor(root: Path) -> Content | None:
    """Kaggle masoudnickparvar/brain-tumor-mri-dataset: `{Training,Testing}/{notumor,glioma,meningioma,pituitary}`."""
    if not (root / "Training" / "notumor").is_dir() or not (root / "Testing" / "notumor").is_dir():
        return None
    images = [
        RawImage(id=relative_id(path, root), path=path, label=label, patient=relative_id(path, root), disease=label)
        for side in ("Testing", "Training")
        for label in _BRAIN_CLASSES
        for path in rasters(root / side / label)
    ]
    return Content(images)


def lag(root: Path) -> Content | None:
    """LAG as distributed: `{non_glaucoma,suspicious_glaucoma}/image/*.jpg`; also without the `image` level.

    Images are numbered through both folders; the id is the number in four digits.
    """
    folders = {name: root / name for name in _LAG_CLASSES if (root / name).is_dir()}
    labels = {_LAG_CLASSES[name] for name in folders}
    if "suspicious_glaucoma" not in labels or "non_glaucoma" not in labels:
        return None
    images = [
        RawImage(id=path.stem.zfill(4), path=path, label=label, patient=path.stem.zfill(4), disease=label)
        for name, folder in sorted(folders.items())
        for label in [_LAG_CLASSES[name]]
        for path in rasters(folder / "image") or rasters(folder)
    ]
    return Content(images)


def lc25000_lung(root: Path) -> Content | None:
    """LC25000's lung part: `lung_image_sets/{lung_n,lung_aca}`; 250 original tiles a class, each in altered copies."""
    base = root / "lung_image_sets" if (root / "lung_image_sets").is_dir() else root
    if not (base / "lung_n").is_dir() or not (base / "lung_aca").is_dir():
        return None
    images = [
        RawImage(id=path.stem, path=path, label=label, patient=path.stem, disease=label)
        for label in ("lung_n", "lung_aca")
        for path in rasters(base / label)
    ]
    return Content(images)


def chest_child(root: Path) -> Content | None:
    """Kermany's paediatric chest X-rays: `{train,val,test}/{NORMAL,PNEUMONIA}`; the patient is in the file's name.

    `person7_bacteria_24` is patient `person7`; `IM-0115-0001` and `NORMAL2-IM-1427-0001` are two series of
    numbers, so that the prefix belongs to the patient. The folders `test` and `train` reuse the `person` numbers for
    other children, hence the side is part of the patient there.
    """
    sides = [side for side in ("train", "val", "test") if (root / side / "NORMAL").is_dir()]
    if not sides:
        return None
    images = [
        RawImage(relative_id(path, root), path, label, _child_patient(path.name, side), _child_disease(path.name))
        for side in sides
        for label in ("NORMAL", "PNEUMONIA")
        for path in rasters(root / side / label)
    ]
    return Content(images)


def _child_patient(name: str, side: str) -> str:
    if match := _CHILD_PNEUMONIA.match(name):
        return f"{side}/{match[1]}"
    if match := _CHILD_NORMAL.match(name):
        return f"{match[1] or ''}IM-{match[2]}"
    return f"{side}/{Path(name).stem}"


def _child_disease(name: str) -> str:
    match = _CHILD_PNEUMONIA.match(name)
    return {"bacteria": "bacterial pneumonia", "virus": "viral pneumonia"}[match[2]] if match else ""
