"""Layouts in which a table holds the labels."""

import re
from collections import defaultdict
from pathlib import Path

from medfsad_bench.errors import SourceError
from medfsad_bench.sources.raw import Box, RawImage, rasters, read_csv

_NIH_NAME = re.compile(r"^(\d{8})_\d{3}$")
_NIH_FOLDERS = {"No_findings": "No Finding", "No Finding": "No Finding", "Pneumonia": "Pneumonia"}


def rsna(root: Path) -> list[RawImage] | None:
    """RSNA Pneumonia Detection Challenge 2018: `stage_2_train_images/<patientId>.dcm` and its two tables."""
    folder = root / "stage_2_train_images"
    labels, classes = root / "stage_2_train_labels.csv", root / "stage_2_detailed_class_info.csv"
    if not folder.is_dir() or not labels.is_file() or not classes.is_file():
        return None
    return rsna_from_tables(labels, classes, folder)


def rsna_from_tables(labels: Path, classes: Path, folder: Path) -> list[RawImage]:
    """All images that the two tables name, whether or not their files are there.

    Raises:
        SourceError: If the tables contradict each other on a patient.
    """
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in read_csv(labels, "patientId", "x", "y", "width", "height", "Target"):
        found = boxes[row["patientId"]]
        if row["Target"] == "1":
            found.append(Box(float(row["x"]), float(row["y"]), float(row["width"]), float(row["height"])))
    label: dict[str, str] = {}
    for row in read_csv(classes, "patientId", "class"):
        if label.setdefault(row["patientId"], row["class"]) != row["class"]:
            raise SourceError(f"{classes}: patient {row['patientId']} has two classes. Download the table again.")
    contradiction = next((p for p, name in label.items() if (name == "Lung Opacity") != bool(boxes.get(p))), None)
    if contradiction:
        raise SourceError(
            f"{classes.parent}: patient {contradiction} is {label[contradiction]!r} but has "
            f"{len(boxes.get(contradiction, []))} box(es) in {labels.name}; expected boxes for 'Lung Opacity' alone. "
            "Download both tables again."
        )
    return [
        RawImage(
            id=patient,
            path=folder / f"{patient}.dcm",
            label=name,
            patient=patient,
            disease="lung opacity" if name == "Lung Opacity" else "",
            boxes=tuple(boxes[patient]),
        )
        for patient, name in sorted(label.items())
    ]


def aptos(root: Path) -> list[RawImage] | None:
    """APTOS 2019: `train_images/<id_code>.png` and `train.csv` (id_code, diagnosis 0–4)."""
    folder, table = root / "train_images", root / "train.csv"
    if not folder.is_dir() or not table.is_file():
        return None
    files = {path.stem: path for path in rasters(folder)}
    return [
        RawImage(
            id=row["id_code"],
            path=files.get(row["id_code"], folder / f"{row['id_code']}.png"),
            label=row["diagnosis"],
            patient=row["id_code"],
            disease=f"grade {row['diagnosis']}",
        )
        for row in sorted(read_csv(table, "id_code", "diagnosis"), key=lambda row: row["id_code"])
    ]


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
                images[name] = RawImage(
                    id=Path(name).stem, path=files[name], label=label, patient=row["ID"], disease=label
                )
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


def _nih_from_table(root: Path, table: Path) -> list[RawImage]:
    files = {path.name: path for folder in sorted(root.glob("images*")) for path in _nih_files(folder)}
    return [
        _nih_image(files.get(row["Image Index"], root / "images" / row["Image Index"]), row["Finding Labels"])
        for row in read_csv(table, "Image Index", "Finding Labels")
        if row["Finding Labels"] == "No Finding" or "Pneumonia" in row["Finding Labels"].split("|")
    ]


def _nih_files(folder: Path) -> list[Path]:
    return rasters(folder) or rasters(folder / "images")


def _nih_image(path: Path, labels: str) -> RawImage:
    label = "Pneumonia" if "Pneumonia" in labels.split("|") else labels
    return RawImage(id=path.stem, path=path, label=label, patient=path.stem[:8], disease=label)
