"""Downloads: recognised by what lies in a folder, labelled by their own names and tables."""

from collections import Counter
from pathlib import Path

import pytest

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import recognise
from medfsad_bench.layouts.folders import chest_child
from medfsad_bench.layouts.tables import odir_label, rsna_from_tables

REAL_LAYOUTS = {
    "brain_tumor": {"notumor": 1996, "glioma": 650, "meningioma": 650, "pituitary": 60},
    "chest_nih": {"No Finding": 62, "Pneumonia": 62},
    "chest_child": {"NORMAL": 450, "PNEUMONIA": 250},
    "lc25000_lung": {"lung_n": 249, "lung_aca": 120},
    "lgg": {"slice": 1108},
    "odir": {"normal fundus": 220, "diabetic retinopathy": 100, "glaucoma": 70},
}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.shared
def test_every_real_layout_is_recognised_with_its_counts(shared: Path) -> None:
    downloads, left_alone = recognise(shared / "data")
    assert {item.layout: dict(Counter(image.label for image in item.images)) for item in downloads} == REAL_LAYOUTS
    assert [folder.name for folder in left_alone] == ["dicom", "nifti"]


@pytest.mark.shared
def test_the_real_rsna_tables_give_the_known_counts(shared: Path) -> None:
    tables = shared / "indexes" / "rsna"
    images = rsna_from_tables(tables / "stage_2_train_labels.csv", tables / "stage_2_detailed_class_info.csv", tables)
    counts = Counter(image.label for image in images)
    assert counts == {"No Lung Opacity / Not Normal": 11821, "Normal": 8851, "Lung Opacity": 6012}
    assert all(bool(image.boxes) == (image.label == "Lung Opacity") for image in images)


@pytest.mark.shared
def test_chest_patients_coarsen_the_independent_table(shared: Path) -> None:
    """Whoever is one patient in the sample's own table is one here; `IM-0650-0001-0002` counts as 0650 as well."""
    import csv

    with (shared / "data" / "chest_xray" / "manifest.csv").open() as file:
        theirs = {Path(row["file"]).with_suffix("").as_posix(): row["patient"] for row in csv.DictReader(file)}
    content = chest_child(shared / "data" / "chest_xray")
    images = content.images if content else []
    pairs = {(image.patient, theirs[image.id]) for image in images}
    assert len(pairs) == len({other for _, other in pairs})
    assert len({ours for ours, _ in pairs}) == len(pairs) - 7


def test_a_folder_that_holds_several_downloads_is_searched_one_level_deep(tmp_path: Path) -> None:
    touch(tmp_path / "a/normal/1.png", tmp_path / "a/anomalous/2.png", tmp_path / "b/readme.txt")
    downloads, left_alone = recognise(tmp_path)
    assert [(item.layout, len(item.images)) for item in downloads] == [("plain", 2)]
    assert [folder.name for folder in left_alone] == ["b"]


def test_a_download_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not a folder"):
        recognise(tmp_path / "nothing")


def test_masks_are_matched_by_name_and_with_anomalous_images_first(tmp_path: Path) -> None:
    names = ("normal/1.png", "normal/2.png", "anomalous/2.png", "anomalous/3.png", "masks/1.png", "masks/2.png")
    touch(*(tmp_path / name for name in names))
    images = {image.id: image for image in recognise(tmp_path)[0][0].images}
    assert {name: [mask.stem for mask in image.masks] for name, image in images.items()} == {
        "normal/1": ["1"], "normal/2": [], "anomalous/2": ["2"], "anomalous/3": [],
    }  # fmt: skip


def test_camelyon_slides_come_from_the_name_and_fix_the_side(tmp_path: Path) -> None:
    touch(
        tmp_path / "train/good/normal_001_62656_108672.png",
        tmp_path / "test/good/img/test_001_21056_26688.png",
        tmp_path / "test/Ungood/img/test_001_16896_12416.png",
        tmp_path / "valid/good/test_113_1_2.png",
    )
    images = {image.id: image for image in recognise(tmp_path)[0][0].images}
    assert images["normal_001_62656_108672"].patient == "normal_001"
    assert images["normal_001_62656_108672"].split == "train"
    assert images["test_001_21056_26688"].split == "test"
    assert images["test_113_1_2"].split == "test"
    assert images["test_001_16896_12416"].label == "Ungood"


def test_rsna_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    labels, classes = tmp_path / "labels.csv", tmp_path / "classes.csv"
    classes.write_text("patientId,class\np1,Normal\n")
    labels.write_text("patientId,x,y,width,height,Target\np1,1,2,3,4,1\n")
    with pytest.raises(DownloadError, match="p1 is 'Normal' but has 1 box"):
        rsna_from_tables(labels, classes, tmp_path)


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "train_images/a.png")
    (tmp_path / "train.csv").write_text("name,grade\na,0\n")
    with pytest.raises(DownloadError, match="id_code, diagnosis not found; the table has name, grade"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("keywords", "label"),
    [
        ("normal fundus", "normal fundus"),
        ("normal fundus，lens dust", "other"),
        ("mild nonproliferative retinopathy", "diabetic retinopathy"),
        ("suspected glaucoma", "other"),
        ("glaucoma，myopia retinopathy", "glaucoma"),
        ("central retinal vein occlusion", "other"),
    ],
)
def test_an_eye_is_labelled_by_its_own_keywords(keywords: str, label: str) -> None:
    assert odir_label(keywords) == label
