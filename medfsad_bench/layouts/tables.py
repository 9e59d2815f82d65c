"""Layouts in which a table holds the labels."""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.raw import DICOM_SUFFIXES, Box, RawImage, files_below, rasters, read_csv

_NIH_NAME = re.compile(r"^(\d{8})_\d{3}$")
_APTOS_TABLES = ("train.csv", "train_1.csv", "valid.csv", "test.csv")
_NIH_FOLDERS = {"No_findings": "No Finding", "No Finding": "No Finding", "Pneumonia": "Pneumonia"}


def rsna(root: Path) -> list[RawImage] | None:
    """RSNA Pneumonia Detection Challenge 2018: two tables, and the images in Kaggle's or in TCIA's layout.

    Kaggle: `stage_2_train_images/<patientId>.dcm`. TCIA's retriever: `…/<patientId>/<study>/<series>/1-1.dcm` at any
    depth; the patient is the folder's name.
    """
    labels, classes = root / "stage_2_train_labels.csv", root / "stage_2_detailed_class_info.csv"
    if not labels.is_file() or not classes.is_file():
        return None
    folder = root / "stage_2_train_images"
    images = rsna_from_tables(labels, classes, folder)
    if folder.is_dir() and any(image.path.is_file() for image in images[:100]):
        return images
    files = _by_patient(root, {image.id for image in images})
    if not files:
        return None
    return [replace(image, path=files.get(image.id, image.path)) for image in images]


def rsna_from_tables(labels: Path, classes: Path, folder: Path) -> list[RawImage]:
    """All images that the two tables name, whether or not their files are there.

    Raises:
        DownloadError: If the tables contradict each other on a patient.
    """
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in read_csv(labels, "patientId", "x", "y", "width", "height", "Target"):
        of_patient = boxes[row["patientId"]]
        if row["Target"] == "1":
            of_patient.append(Box(float(row["x"]), float(row["y"]), float(row["width"]), float(row["height"])))
    label: dict[str, str] = {}
    for row in read_csv(classes, "patientId", "class"):
        if label.setdefault(row["patientId"], row["class"]) != row["class"]:
            raise DownloadError(f"{classes}: patient {row['patientId']} has two classes. Download the table again.")
    contradiction = next((p for p, name in label.items() if (name == "Lung Opacity") != bool(boxes.get(p))), None)
    if contradiction:
        raise DownloadError(
            f"{classes.parent}: patient {contradiction} is {label[contradiction]!r} but has "
            f"{len(boxes.get(contradiction, []))} box(es) in {labels.name}; expected boxes for 'Lung Opacity' alone. "
            "Download both tables again."
        )
    images = []
    for patient, name in sorted(label.items()):
        path, disease = folder / f"{patient}.dcm", "lung opacity" if name == "Lung Opacity" else ""
        images.append(RawImage(patient, path, name, patient, disease=disease, boxes=tuple(boxes[patient])))
    return images


def aptos(root: Path) -> list[RawImage] | None:
    """APTOS 2019: `train_images/<id_code>.png` and `train.csv` (id_code, diagnosis 0–4), or a mirror of it.

    Mirrors of 224 or 512 px hold PNG or JPEG files, in `train_images/` or in other folders of images below the root
    (`colored_images/<grade>/`), and some cut the table in three (`train_1.csv`, `valid.csv`, `test.csv`). Copies that
    were filtered (`gaussian_filtered_images/`) are no photographs any more and aren't taken.

    Raises:
        DownloadError: If the tables lack a column or give an image two grades.
    """
    tables = [root / name for name in _APTOS_TABLES if (root / name).is_file()]
    grades: dict[str, str] = {}
    for table in tables:
        if table.name == "test.csv" and "diagnosis" not in table.read_text("utf-8-sig")[:200]:
            continue  # Kaggle's own list of test images, without grades
        for row in read_csv(table, "id_code", "diagnosis"):
            if grades.setdefault(row["id_code"], row["diagnosis"]) != row["diagnosis"]:
                raise DownloadError(f"{table}: {row['id_code']} has two grades. Download the tables again.")
    if not grades:
        return None
    files = {path.stem: path for folder in _photograph_folders(root) for path in reversed(files_below(folder))}
    if not set(grades) & set(files):
        return None
    images = []
    for name, grade in sorted(grades.items()):
        path = files.get(name, root / "train_images" / f"{name}.png")
        images.append(RawImage(name, path, grade, patient=name, disease=f"grade {grade}"))
    return images


def odir(root: Path) -> list[RawImage] | None:
    """ODIR-5K: `preprocessed_images/<ID>_{left,right}.jpg` and `full_df.csv`, labelled by the eye's own keywords.

    The columns N, D, G, … hold for the patient, not for the eye, so they are not used. An eye is `normal fundus`,
    `diabetic retinopathy` (any keyword with `retinopathy` of diabetic kind), `glaucoma`, both, or something else.
    """
    folder, table = root / "preprocessed_images", root / "full_df.csv"
    if not folder.is_dir() or not table.is_file():
        return None
    files = {path.name: path for path in rasters(folder)}
    images: dict[str, RawImage] = {}
    for row in read_csv(table, "ID", "Left-Fundus", "Right-Fundus", "Left-Diagnostic Keywords"):
        for side in ("Left", "Right"):
            name, keywords = row[f"{side}-Fundus"], row[f"{side}-Diagnostic Keywords"]
            if name in files and name not in images:
                label = odir_label(keywords)
                images[name] = RawImage(Path(name).stem, files[name], label, patient=row["ID"], disease=label)
    return [images[name] for name in sorted(images)]


def odir_label(keywords: str) -> str:
    """Class of one eye from its diagnostic keywords, which the table separates by a (full-width) comma.

    >>> odir_label("moderate non proliferative retinopathy，epiretinal membrane")
    'diabetic retinopathy'
    >>> odir_label("glaucoma，diabetic retinopathy")
    'glaucoma'
    >>> odir_label("hypertensive retinopathy")
    'other'
    """
    words = [word.strip().lower() for word in re.split(r"[,，]", keywords)]
    if words == ["normal fundus"]:
        return "normal fundus"
    if any("glaucoma" in word and "suspected" not in word for word in words):
        return "glaucoma"
    if any("proliferative" in word or "diabetic retinopathy" in word for word in words):
        return "diabetic retinopathy"
    return "other"


def chest_nih(root: Path) -> list[RawImage] | None:
    """NIH ChestX-ray14: `images*/` and `Data_Entry_2017*.csv`, or its folder form `No_findings/`, `Pneumonia/`.

    The patient is the first eight digits of the file's name.
    """
    tables = sorted(root.glob("Data_Entry_2017*.csv"))
    if tables:
        return _nih_from_table(root, tables[0])
    images = [
        _nih_image(path, label)
        for name, label in sorted(_NIH_FOLDERS.items())
        for path in rasters(root / name)
        if _NIH_NAME.match(path.stem)
    ]
    return images if {image.label for image in images} == {"No Finding", "Pneumonia"} else None


def _by_patient(root: Path, patients: set[str]) -> dict[str, Path]:
    """DICOM files by the patient that their name or a folder above them names; the first where there are several."""
    first: dict[str, Path] = {}
    for path in files_below(root):
        if path.suffix.lower() in DICOM_SUFFIXES:
            names = (path.stem, *reversed(path.relative_to(root).parent.parts))
            patient = next((name for name in names if name in patients), None)
            if patient is not None:
                first.setdefault(patient, path)
    return first


def _photograph_folders(root: Path) -> list[Path]:
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink()]
    return [path for path in folders if "filtered" not in path.name and not path.name.startswith(".")]


def _nih_from_table(root: Path, table: Path) -> list[RawImage]:
    folders = sorted(root.glob("images*"))
    files = {path.name: path for folder in folders for path in rasters(folder) or rasters(folder / "images")}
    return [
        _nih_image(files.get(row["Image Index"], root / "images" / row["Image Index"]), row["Finding Labels"])
        for row in read_csv(table, "Image Index", "Finding Labels")
        if row["Finding Labels"] == "No Finding" or "Pneumonia" in row["Finding Labels"].split("|")
    ]


def _nih_image(path: Path, labels: str) -> RawImage:
    label = "Pneumonia" if "Pneumonia" in labels.split("|") else labels
    return RawImage(id=path.stem, path=path, label=label, patient=path.stem[:8], disease=label)
