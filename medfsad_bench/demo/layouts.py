"""The six raw downloads, as trees of files and tables; one function per set, each yields after every image it wrote."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator
from PIL import Image, ImageOps

from medfsad_bench.demo.brain import CONTRASTS, Tumour, brain_phantom, brain_volume
from medfsad_bench.demo.chest import Finding, chest_phantom
from medfsad_bench.demo.dicom import Coding, Exam, write_radiograph
from medfsad_bench.demo.fundus import glaucoma_phantom, retinopathy_phantom
from medfsad_bench.demo.histology import draw_stain, histology_phantom
from medfsad_bench.demo.texture import between

Counts = Mapping[str, int]
_Kind = TypeVar("_Kind")

_FIRST_BRAIN_NUMBER = 7000  # beyond the real set's 1,594, whose committed groups go by these names
_CHEST_PX, _LAG_PX, _HIS_PX = 384, 400, 256
_BRATS_SHAPE, _BRATS_SPACING_MM = (96, 96, 48), (2.5, 2.5, 3.2)  # about a head, as BraTS' 240 x 240 x 155 mm


@dataclass(frozen=True, slots=True)
class Draws:
    """Random numbers of one set: every image has its own, so that none depends on how many there are."""

    seed: int
    set_number: int

    def rng(self, *which: int) -> Generator:
        """The generator of one image, or of what the whole set shares if none is named."""
        return np.random.default_rng([self.seed, self.set_number, *which])


def brain_tumor(folder: Path, draws: Draws, counts: Counts) -> Iterator[None]:
    """Kaggle masoudnickparvar: `{Training,Testing}/<class>/Tr-no_7010.jpg`, with altered copies in both folders."""
    normals = []
    for index, tumour in enumerate(Counter({t: counts[t] for t in _BRAIN_CODES}).elements()):
        rng = draws.rng(index)
        image, _ = brain_phantom(rng, int(rng.integers(200, 261)), tumour=tumour, contrast=_pick(rng, CONTRASTS))
        picture = _brain_picture(rng, image)
        path = _brain_path(folder, rng, tumour, index)
        _save_jpeg(path, picture, rng)
        normals += [picture] if tumour == "notumor" else []
        yield
    for index in range(counts["copies"]):
        rng = draws.rng(10_000 + index)
        copy = _altered(rng, normals[index % max(1, len(normals) // 4)])  # a quarter of the slices has all the copies
        _save_jpeg(_brain_path(folder, rng, "notumor", 500 + index), copy, rng)
        yield


def rsna(folder: Path, draws: Draws, counts: Counts) -> Iterator[None]:
    """RSNA Pneumonia 2018: `stage_2_train_images/<patientId>.dcm`, boxes and classes in two tables."""
    images = folder / "stage_2_train_images"
    images.mkdir(parents=True)
    labels: list[tuple[str, ...]] = []
    classes: list[tuple[str, str]] = []
    for index, finding in enumerate(Counter({f: counts[f] for f in _FINDINGS}).elements()):
        rng = draws.rng(index)
        exam = _exam(rng)
        image, opacities = chest_phantom(rng, _CHEST_PX, finding=finding)
        coding: Coding = "inverted" if index % 10 == 7 else "raw" if index % 10 == 3 else "jpeg"
        write_radiograph(images / f"{exam.patient_id}.dcm", image, exam, coding=coding)
        boxes = [(*_bounding_box(mask), "1") for mask in opacities] or [("", "", "", "", "0")]
        labels += [(exam.patient_id, *box) for box in boxes]
        classes += [(exam.patient_id, finding)] * len(boxes)  # once per box, as in the real table
        yield
    _write_table(folder / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"), labels)
    _write_table(folder / "stage_2_detailed_class_info.csv", ("patientId", "class"), classes)


def aptos(folder: Path, draws: Draws, counts: Counts) -> Iterator[None]:
    """APTOS 2019: `train_images/<id_code>.png` of many sizes and `train.csv` with grades 0 to 4."""
    rows = []
    for index, kind in enumerate(Counter(counts).elements()):
        rng = draws.rng(index)
        grade = 0 if kind == "0" else int(rng.choice([1, 2, 3, 4], p=[0.20, 0.54, 0.10, 0.16]))  # as in the real table
        height = int(rng.integers(300, 381))
        shape = (height, int(height * _pick(rng, (1.0, 1.18, 1.33, 1.5))))
        image, _ = retinopathy_phantom(rng, shape, grade=grade)
        id_code = rng.bytes(6).hex()
        _save_png(folder / "train_images" / f"{id_code}.png", image)
        rows.append((id_code, str(grade)))
        yield
    _write_table(folder / "train.csv", ("id_code", "diagnosis"), rows)


def lag(folder: Path, draws: Draws, counts: Counts) -> Iterator[None]:
    """LAG: `{non_glaucoma,suspicious_glaucoma}/image/NNNN.jpg`, numbered through both folders."""
    kinds = list(Counter(counts).elements())
    draws.rng().shuffle(kinds)
    for number, kind in enumerate(kinds, start=1):
        rng = draws.rng(number)
        low, high = (0.60, 0.85) if kind == "suspicious_glaucoma" else (0.20, 0.52)
        image, _ = glaucoma_phantom(rng, (_LAG_PX, _LAG_PX), cup_ratio=between(rng, low, high))
        _save_jpeg(folder / kind / "image" / f"{number:04d}.jpg", _picture(image), rng)
        yield


def his(folder: Path, draws: Draws, counts: Counts) -> Iterator[None]:
    """Camelyon16 patches in BMAD's form: `train/good/normal_001_62656_108672.png` (slide, x, y), and so on."""
    for number, (side, slides) in enumerate(_HIS_SLIDES.items()):
        for label in ("good", "Ungood"):
            for index in range(counts.get(f"{side}/{label}", 0)):
                slide = slides[index % len(slides)]
                rng = draws.rng(number, int(label == "Ungood"), index)
                stain = draw_stain(np.random.default_rng([draws.seed, *slide.encode()]))
                image, _ = histology_phantom(rng, _HIS_PX, anomalous=label == "Ungood", stain=stain)
                x, y = 64 * rng.integers(100, 2200, size=2)
                _save_png(folder / side / label / f"{slide}_{x}_{y}.png", image)
                yield


def brats(folder: Path, draws: Draws, counts: Counts) -> Iterator[None]:
    """BraTS 2021: a folder per patient, four sequences and the segmentation as int16 NIfTI."""
    affine = np.diag([-_BRATS_SPACING_MM[0], -_BRATS_SPACING_MM[1], _BRATS_SPACING_MM[2], 1.0])
    affine[:3, 3] = (0.0, 239.0, 0.0)  # the origin that all of BraTS has
    number = 0
    for index in range(counts["patients"]):
        rng = draws.rng(index)
        number += int(rng.integers(1, 4)) if index else 0  # the real numbers have gaps
        patient = f"BraTS2021_{number:05d}"
        volumes, labels = brain_volume(rng, _BRATS_SHAPE)
        (folder / patient).mkdir(parents=True)
        for name, voxels in (*volumes.items(), ("seg", labels)):
            nib.save(nib.nifti1.Nifti1Image(voxels, affine), folder / patient / f"{patient}_{name}.nii.gz")
        yield


_BRAIN_CODES: dict[Tumour, str] = {"notumor": "no", "glioma": "gl", "meningioma": "me", "pituitary": "pi"}
_FINDINGS: tuple[Finding, ...] = ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")
_HIS_SLIDES = {
    "train": [f"normal_{n:03d}" for n in (1, 2, 3, 5, 8, 12, 19, 27, 44, 61, 86, 93, 117, 140)],
    "valid": ["test_113", "test_116", "test_117"],
    "test": [f"test_{n:03d}" for n in (1, 2, 4, 8, 10, 13, 16, 21, 26)],
}


def _pick(rng: Generator, options: Sequence[_Kind]) -> _Kind:
    return options[int(rng.integers(len(options)))]


def _brain_picture(rng: Generator, image: Float[np.ndarray, "h w"]) -> Image.Image:
    """Cut to an upright format, grey or RGB, as the real files are both."""
    margin = int(rng.integers(1, 16))
    picture = _picture(image[:, margin:-margin])
    return picture.convert("RGB") if rng.random() < 0.4 else picture


def _brain_path(folder: Path, rng: Generator, tumour: Tumour, index: int) -> Path:
    side, prefix = ("Training", "Tr") if rng.random() < 0.7 else ("Testing", "Te")
    old = "Tr" if index % 12 == 0 else ""  # a few names of an earlier version are left in the real set
    return folder / side / tumour / f"{prefix}-{_BRAIN_CODES[tumour]}{old}_{_FIRST_BRAIN_NUMBER + index:04d}.jpg"


def _altered(rng: Generator, picture: Image.Image) -> Image.Image:
    copy = ImageOps.mirror(picture) if rng.random() < 0.6 else picture
    if rng.random() < 0.5:
        copy = copy.resize((int(copy.width * between(rng, 0.95, 1.05)), int(copy.height * between(rng, 0.95, 1.05))))
    gamma = between(rng, 0.7, 1.4)
    return copy.point([round(255 * (level / 255) ** gamma) for level in range(256)] * len(copy.getbands()))


def _exam(rng: Generator) -> Exam:
    return Exam(
        patient_id=str(UUID(bytes=rng.bytes(16), version=4)),
        view="PA" if rng.random() < 0.55 else "AP",
        sex="M" if rng.random() < 0.57 else "F",
        age_years=int(np.clip(rng.normal(47, 17), 1, 95)),
        spacing_mm=round(float(_pick(rng, (0.139, 0.143, 0.168, 0.171, 0.194))) * 1024 / _CHEST_PX, 3),
    )


def _bounding_box(mask: Bool[np.ndarray, "h w"]) -> tuple[str, str, str, str]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    return tuple(f"{edge}.0" for edge in edges)  # type: ignore[return-value]  # four, as above


def _picture(image: Float[np.ndarray, "h w *c"]) -> Image.Image:
    return Image.fromarray(np.round(image * 255).astype(np.uint8))


def _save_jpeg(path: Path, picture: Image.Image, rng: Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=int(rng.integers(85, 96)))


def _save_png(path: Path, image: Float[np.ndarray, "h w 3"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _picture(image).save(path, compress_level=3)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(sorted(rows))
