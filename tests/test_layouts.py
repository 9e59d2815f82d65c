"""Every form in which people have these sets on disk: recognised, read, and none of it leads out of its folder."""

import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import Silent, write_own_folder
from PIL import Image
from test_dicom import write as write_dicom

from medfsad_bench.curation.field_of_view import cut_square, field_of_view
from medfsad_bench.curation.load import LoadPlan, load_images
from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.curation.staging import staged_pixels
from medfsad_bench.demo import write_demo_downloads
from medfsad_bench.errors import CurationError, DownloadError, ManifestError
from medfsad_bench.layouts import RawImage, recognise
from medfsad_bench.layouts import archives as zips
from medfsad_bench.manifest import slide_coordinates
from medfsad_bench.readers import Intensity
from medfsad_bench.store import Dataset


def prepared(download: Path, out: Path, **options: object) -> list[SetReport]:
    return prepare(download, PrepareOptions(out, **{"size_px": 64, **options}), watcher=Silent())[0]  # type: ignore[arg-type]


def only(folder: Path) -> tuple[str, dict[str, RawImage]]:
    (download,), _ = recognise(folder)
    return download.layout, {image.id: image for image in download.images}


def picture(path: Path, seed: int = 0, shape: tuple[int, int] = (96, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng([seed, *path.name.encode()]).integers(30, 220, (9, 8), np.uint8)
    Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "raw"
    write_demo_downloads(folder, scale=0.2)
    return folder


# --- zip files


def zipped(folder: Path, archive: Path, *, inside: str = "") -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{inside}{path.relative_to(folder).as_posix()}")
    return archive


def test_a_zip_file_gives_the_digests_of_the_folder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=1, masks=True)
    expected = prepared(tmp_path / "ward", tmp_path / "a")[0]
    flat = zipped(tmp_path / "ward", tmp_path / "flat" / "ward.zip")
    nested = zipped(tmp_path / "ward", tmp_path / "nested" / "ward.zip", inside="ward/")
    before = sorted(tmp_path.rglob("*"))
    for number, download in enumerate((flat, flat.parent, nested, nested.parent)):
        report = prepared(download, tmp_path / f"out{number}")[0]
        assert (report.name, report.membership_digest, report.content_digest) == (
            "ward", expected.membership_digest, expected.content_digest
        )  # fmt: skip
        assert list((tmp_path / f"out{number}" / ".staging").rglob("*.png")) == []
    after = [path for path in sorted(tmp_path.rglob("*")) if not path.relative_to(tmp_path).parts[0].startswith("out")]
    assert after == before


def test_an_archive_of_images_is_unpacked_beside_its_tables(demo: Path, tmp_path: Path) -> None:
    """As Kaggle once gave RSNA: the tables, and `stage_2_train_images.zip` with the files at its root."""
    download = demo / "rsna-pneumonia-detection-challenge"
    for table in download.glob("*.csv"):
        shutil.copy(table, tmp_path)
    zipped(download / "stage_2_train_images", tmp_path / "stage_2_train_images.zip")
    report = prepared(tmp_path, tmp_path / "out", benchmark="demo")[0]
    assert report.membership_digest == prepared(download, tmp_path / "out2", benchmark="demo")[0].membership_digest


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"])
def test_a_name_that_leads_out_stops_before_anything_is_unpacked(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "ward.zip", "w") as file:
        file.writestr("normal/a.png", b"x")
        file.writestr(name, b"x")
    with pytest.raises(DownloadError, match="leads out of the folder"):
        prepared(tmp_path / "ward.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ward.zip"]


def test_bombs_links_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("normal/a.bin", b"\0" * (80 << 20))
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        link = zipfile.ZipInfo("normal/a.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    picture(tmp_path / "ward" / "normal" / "a.png")
    picture(tmp_path / "ward" / "anomalous" / "b.png")
    whole = zipped(tmp_path / "ward", tmp_path / "cut.zip")
    whole.write_bytes(whole.read_bytes()[:-30])
    flipped = zipped(tmp_path / "ward", tmp_path / "flipped.zip")
    content = bytearray(flipped.read_bytes())
    content[60] ^= 255
    flipped.write_bytes(bytes(content))
    messages = {"bomb": "times its size", "link": "is a link", "cut": "is damaged", "flipped": "is damaged"}
    for name, message in messages.items():
        with pytest.raises(DownloadError, match=message):
            prepared(tmp_path / f"{name}.zip", tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != ".lock"]


def test_an_archive_that_the_disk_can_not_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own_folder(tmp_path / "ward", seed=1, masks=False)
    archive = zipped(tmp_path / "ward", tmp_path / "ward.zip")
    monkeypatch.setattr(zips.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))  # type: ignore[attr-defined]
    with pytest.raises(CurationError, match=r"0\.0 GiB are free"):
        prepared(archive, tmp_path / "out")


# --- the benchmark's sets


def test_rsna_in_tcias_folders_is_the_same_as_in_kaggles(demo: Path, tmp_path: Path) -> None:
    download = demo / "rsna-pneumonia-detection-challenge"
    for table in download.glob("*.csv"):
        shutil.copy(table, tmp_path)
    for file in (download / "stage_2_train_images").iterdir():
        folder = tmp_path / "RSNA" / file.stem / "01-01-1901-NA-NA-1" / "1.000000-view-2"
        folder.mkdir(parents=True)
        shutil.copy(file, folder / "1-1.dcm")
    layout, images = only(tmp_path)
    assert layout == "rsna"
    assert all(image.path.is_file() for image in images.values())
    assert {image.path.parent.parent.parent.name == name for name, image in images.items()} == {True}


@pytest.mark.parametrize("form", ["kaggle", "512", "classes", "three tables"])
def test_aptos_and_its_mirrors_give_the_same_ids_and_grades(tmp_path: Path, form: str) -> None:
    grades = {"aa01": "0", "bb02": "2", "cc03": "4"}
    names = {"classes": ["No_DR", "Moderate", "Proliferate_DR"]}
    for (name, _grade), folder in zip(grades.items(), names.get(form, [""] * 3), strict=True):
        if form == "classes":
            picture(tmp_path / "colored_images" / folder / f"{name}.png")
            picture(tmp_path / "gaussian_filtered_images" / folder / f"{name}.png", seed=7)
        else:
            picture(tmp_path / "train_images" / f"{name}.{'jpg' if form == '512' else 'png'}")
    rows = [f"{name},{grade}\n" for name, grade in grades.items()]
    if form == "three tables":
        for table, row in zip(("train_1.csv", "valid.csv", "test.csv"), rows, strict=True):
            (tmp_path / table).write_text("id_code,diagnosis\n" + row)
    else:
        (tmp_path / "train.csv").write_text("id_code,diagnosis\n" + "".join(rows))
        (tmp_path / "test.csv").write_text("id_code\nzz99\n")
    layout, images = only(tmp_path)
    assert layout == "aptos"
    assert {name: image.label for name, image in images.items()} == grades
    assert all(image.path.is_file() and "filtered" not in str(image.path) for image in images.values())


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    return (inside[..., None] * np.array([180, 90, 30])).astype(np.uint8)


@pytest.mark.parametrize("centre", [(150, 200), (90, 260), (150, 140)])
@pytest.mark.parametrize("radius", [85, 120])
def test_the_circle_is_centred_wherever_it_lies_and_however_large(centre: tuple[int, int], radius: int) -> None:
    square = field_of_view(disc((300, 420), centre, radius))
    assert square is not None
    top, left, edge = square
    assert edge == pytest.approx(2 * radius, abs=0.06 * radius + 2)
    cut_above, cut_below = centre[0] - radius < 0, centre[0] + radius > 300
    if cut_above == cut_below:
        assert top + edge / 2 == pytest.approx(centre[0], abs=3)
    assert left + edge / 2 == pytest.approx(centre[1], abs=3)


def test_a_circle_cut_at_the_top_is_centred_by_its_other_end() -> None:
    picture_ = disc((240, 420), (100, 200), 120)  # 20 px of it lie above the picture
    square = field_of_view(picture_)
    assert square is not None
    assert square[0] + square[2] / 2 == pytest.approx(100, abs=3)
    assert cut_square(picture_, square).shape == (square[2], square[2], 3)
    assert not cut_square(picture_, square)[: -square[0] - 1].any(), "what lies beyond the picture is black"


def test_a_dark_picture_has_no_field_of_view() -> None:
    assert field_of_view(np.zeros((100, 100, 3), np.uint8)) is None
    speck = np.zeros((200, 200, 3), np.uint8)
    speck[90:95, 90:95] = 255
    assert field_of_view(speck) is None


def test_borders_of_aptos_are_cut_before_the_image_is_squashed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(disc((300, 500), (150, 250), 100)).save(path)
    plan = LoadPlan(Intensity(), 64, tmp_path / "staging", keep_masks=False, crop="fundus")
    loaded = load_images([RawImage("a", path, "0", "a")], plan, workers=1, on_done=lambda _: None)["a"]
    pixels, _ = staged_pixels(plan.staging, "a")
    assert loaded.height == loaded.width == pytest.approx(200, abs=6)
    assert pixels[32, 2, 0] > 100
    assert pixels[2, 2, 0] < 20


def test_lag_in_numbered_form_is_labelled_by_its_list(tmp_path: Path) -> None:
    lists = {
        "train": {"0": ["0001.jpg"], "unlabeled": {"0": ["0003.jpg"], "1": ["0004.jpg"]}},
        "test": {"0": ["0002.jpg"], "1": ["0005.jpg"]},
    }
    (tmp_path / "data.json").write_text(json.dumps(lists))
    for number in range(1, 6):
        picture(tmp_path / "images" / f"{number:04d}.jpg")
    layout, images = only(tmp_path)
    assert layout == "medianomaly_lag"
    assert {i: image.label == "suspicious_glaucoma" for i, image in images.items()} == {
        "0001": False, "0002": False, "0003": False, "0004": True, "0005": True,
    }  # fmt: skip
    assert Counter(image.split for image in images.values()) == {"": 2, "test": 2, "train": 1}


def test_brain_tumour_files_are_taken_by_old_and_new_names(tmp_path: Path) -> None:
    for name in ("Tr-noTr_0000.jpg", "Tr-no_0010.jpg"):
        picture(tmp_path / "Training" / "notumor" / name)
    for name in ("Te-glTr_0000.jpg", "Te-gl_0010.jpg"):
        picture(tmp_path / "Testing" / "glioma" / name)
    picture(tmp_path / "Testing" / "notumor" / "Te-no_0011.jpg")
    layout, images = only(tmp_path)
    assert (layout, len(images)) == ("brain_tumor", 5)


def camelyon_lists() -> dict[str, object]:
    return {
        "train": {"0": ["normal_001_64_128.png", "normal_002_64_192.png"]},
        "test": {"0": ["test_001_0_64.png", "test_113_0_0.png"], "1": ["test_001_64_0.png"]},
    }


def test_his_is_the_same_in_bmads_and_in_medianomalys_form(tmp_path: Path) -> None:
    lists = camelyon_lists()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "data.json").write_text(json.dumps(lists))
    for side, kinds in lists.items():
        assert isinstance(kinds, dict)
        for kind, names in kinds.items():
            for name in names:
                picture(tmp_path / "m" / "images" / name)
                folder = "valid" if name.startswith("test_113") else side
                picture(tmp_path / "b" / folder / ("Ungood" if kind == "1" else "good") / "img" / name)
    (theirs, bmad), (also, medianomaly) = only(tmp_path / "b"), only(tmp_path / "m")
    assert (theirs, also) == ("camelyon_patches", "medianomaly_his")

    def facts(images: dict[str, RawImage]) -> dict[str, tuple[str, str, str]]:
        return {i: (image.label, image.patient, image.split) for i, image in images.items()}

    assert facts(bmad) == facts(medianomaly)
    assert facts(bmad)["test_113_0_0"] == ("good", "test_113", "test")


@pytest.mark.shared
def test_bmads_real_coordinates_hold_1143_test_normals(shared: Path, tmp_path: Path) -> None:
    for list_ in ("train_good", "valid_good", "test_good", "valid_bad", "test_bad"):
        side, kind = list_.split("_")
        folder = tmp_path / side / ("Ungood" if kind == "bad" else "good")
        folder.mkdir(parents=True)
        for line in (shared / "indexes" / "his" / f"{list_}.txt").read_text().split():
            (folder / f"{line.replace(',', '_')}.png").touch()
    _, images = only(tmp_path)
    counts = Counter((image.label, image.split) for image in images.values())
    assert counts == {("good", "train"): 5088, ("good", "test"): 1143, ("Ungood", "test"): 1113}
    listed = {f"{slide}_{x}_{y}": label for slide, x, y, label in slide_coordinates()}
    assert {i: images[i].label for i in listed} == listed


def test_whole_slides_give_patches_at_the_stated_coordinates_with_polygon_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("tiffslide")
    from medfsad_bench.layouts import slides

    pixels = np.random.default_rng(3).integers(0, 256, (1024, 1280, 3), np.uint8)
    tifffile.imwrite(
        tmp_path / "test_001.tif", pixels, tile=(256, 256), photometric="rgb",
        resolution=(10000 / 0.243, 10000 / 0.243), resolutionunit="CENTIMETER",
    )  # fmt: skip
    corners = "".join(
        f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>'
        for i, (x, y) in enumerate([(512, 256), (640, 256), (640, 512), (512, 512)])
    )
    hole = "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in [(512, 256), (544, 256), (544, 512), (512, 512)])
    outlines = "".join(
        f'<Annotation PartOfGroup="{group}"><Coordinates>{points}</Coordinates></Annotation>'
        for group, points in (("Tumor", corners), ("Exclusion", hole))
    )
    text = f"<ASAP_Annotations><Annotations>{outlines}</Annotations></ASAP_Annotations>"
    (tmp_path / "test_001.xml").write_text(text)
    monkeypatch.setattr(
        slides, "slide_coordinates", lambda: (("test_001", 512, 256, "Ungood"), ("test_001", 64, 640, "good"))
    )
    layout, images = only(tmp_path)
    assert layout == "camelyon_slides"
    plan = LoadPlan(Intensity(), 256, tmp_path / "staging", keep_masks=True)
    loaded = load_images(list(images.values()), plan, workers=1, on_done=lambda _: None)
    assert [item.problem for item in loaded.values()] == ["", ""]
    patch, mask = staged_pixels(plan.staging, "test_001_512_256")
    assert np.array_equal(patch, pixels[256:512, 512:768])
    assert mask is not None
    assert mask[100].tolist() == pytest.approx([0] * 33 + [1] * 96 + [0] * 127, abs=1)
    assert mask.sum() == pytest.approx(256 * 96, rel=0.02)
    other, none = staged_pixels(plan.staging, "test_001_64_640")
    assert np.array_equal(other, pixels[640:896, 64:320])
    assert none is None
    assert loaded["test_001_64_640"].spacing_mm == pytest.approx((0.000243, 0.000243), rel=1e-3)


def test_brats_without_a_segmentation_is_left_out_and_named(demo: Path, tmp_path: Path) -> None:
    download = tmp_path / "brats"
    shutil.copytree(demo / "BraTS2021_Training_Data", download)
    first = sorted(download.iterdir())[0]
    seg = next(first.glob("*_seg*"))
    seg.unlink()
    report = prepared(download, tmp_path / "out", benchmark="demo")[0]
    findings = {finding["fault"]: finding for finding in report.findings}
    assert findings["no-label"]["where"] == first.name
    assert first.name not in set(Dataset(Path(report.path)).table["patient"])


def test_brats_2020_with_its_one_odd_name_is_read(tmp_path: Path) -> None:
    patient = tmp_path / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_355"
    patient.mkdir(parents=True)
    for name in ("BraTS20_Training_355_flair", "W39_1998.09.19_Segm"):
        nib.save(nib.nifti1.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), patient / f"{name}.nii")
    layout, images = only(tmp_path)  # through the folder that the archive wraps around all
    assert layout == "brats"
    assert images["BraTS20_Training_355"].label == "volume"
    assert [mask.name[:3] for mask in images["BraTS20_Training_355"].masks] == ["W39"]


def test_the_upstream_split_needs_a_download_that_holds_it(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"data\.json"):
        prepared(demo / "rsna-pneumonia-detection-challenge", tmp_path / "out", benchmark="medfsad-full")


# --- curated by others, and a user's own


def test_an_unknown_medianomaly_set_keeps_its_split(tmp_path: Path) -> None:
    lists = {"train": {"0": [f"n{k:02d}.png" for k in range(9)]}, "test": {"0": ["x1.png", "x2.png"], "1": ["y1.png"]}}
    names = [*lists["train"]["0"], *lists["test"]["0"], *lists["test"]["1"]]
    for name in names:
        picture(tmp_path / "VinCXR" / "images" / name)
    (tmp_path / "VinCXR" / "data.json").write_text(json.dumps(lists))
    report = prepared(tmp_path / "VinCXR", tmp_path / "out")[0]
    assert report.counts == {"train normal": 9, "test normal": 2, "test anomalous": 1}
    table = Dataset(Path(report.path)).table
    assert set(table.loc[table["split"] == "test", "id"]) == {"x1", "x2", "y1"}


def test_a_bmad_set_keeps_its_split_and_its_masks(tmp_path: Path) -> None:
    root = tmp_path / "Brain"
    for number in range(6):
        picture(root / "train" / "good" / "img" / f"{number}.png")
    for side in ("valid", "test"):
        picture(root / side / "good" / "img" / f"{side}1.png")
        lesion = picture(root / side / "Ungood" / "img" / f"{side}2.png")
        mask = np.zeros((96, 80), np.uint8)
        mask[10:30, 20:40] = 255
        path = root / side / "Ungood" / "label" / lesion.name
        path.parent.mkdir()
        Image.fromarray(mask).save(path)
    report = prepared(root, tmp_path / "out")[0]
    assert report.counts == {"train normal": 6, "test normal": 2, "test anomalous": 2}
    dataset = Dataset(Path(report.path))
    assert dataset.has_mask().sum() == 2
    assert dataset.attributes["mask_kind"] == "voxel"


def test_a_table_gives_labels_patients_and_masks(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "x", seed=4, masks=True)
    rows = ["path,label,patient,mask"]
    for number in range(34):
        kind = "normal" if number < 24 else "anomalous"
        mask = f"x/masks/case{number:02d}.png" if number >= 24 else ""
        rows.append(f"x/{kind}/case{number:02d}.png,{kind},p{number // 2},{mask}")
    download = tmp_path / "study"
    download.mkdir()
    (tmp_path / "x").rename(download / "x")
    (download / "images.csv").write_text("\n".join(rows) + "\n")
    report = prepared(download, tmp_path / "out")[0]
    table = Dataset(Path(report.path)).table
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert table.groupby("patient").size().max() == 2
    assert Dataset(Path(report.path)).has_mask().sum() == report.counts["test anomalous"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,,", "line 3: the label is ''"),
        ("a.png,sick,", "the label is 'sick'"),
        ("n.png,anomalous,", "n.png is anomalous here and normal above"),
        ("../../etc/passwd,normal,", "leads out of study"),
    ],
)
def test_a_faulty_row_of_a_table_is_named(tmp_path: Path, row: str, message: str) -> None:
    picture(tmp_path / "study" / "n.png")
    (tmp_path / "study" / "list.csv").write_text(f"path,label,patient\nn.png,normal,\n{row}\n")
    with pytest.raises(DownloadError, match=message):
        recognise(tmp_path / "study")


def test_a_dicom_tree_is_grouped_by_patient_or_folder_and_cut_into_frames(tmp_path: Path) -> None:
    root = tmp_path / "ward"
    stored = np.random.default_rng(5).integers(0, 4096, (3, 40, 50)).astype(np.uint16)
    for folder in ("normal/s1", "normal/s2", "normal/s3", "anomalous/s4"):
        (root / folder).mkdir(parents=True)
    write_dicom(root / "normal/s1/a.dcm", stored[0], PatientID="p1")
    write_dicom(root / "normal/s1/b.dcm", stored[1], PatientID="p1")
    write_dicom(root / "normal/s2/a.dcm", stored[0], SeriesInstanceUID="1.2.3.4")
    write_dicom(root / "normal/s3/noname", stored, SeriesInstanceUID="1.2.3.5")
    write_dicom(root / "anomalous/s4/a.dcm", stored[2], PatientID="p2")
    layout, images = only(root)
    assert layout == "plain"
    assert {i: image.patient for i, image in images.items()} == {
        "normal/s1/a": "p1", "normal/s1/b": "p1", "normal/s2/a": "s2", "anomalous/s4/a": "p2",
        "normal/s3/noname#0000": "s3", "normal/s3/noname#0001": "s3", "normal/s3/noname#0002": "s3",
    }  # fmt: skip
    assert images["normal/s3/noname#0002"].frame == 2


def test_a_nifti_folder_becomes_slices_with_voxel_masks(tmp_path: Path) -> None:
    root = tmp_path / "mri"
    for folder in ("normal", "anomalous", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(8):
        rng = np.random.default_rng(number)
        coarse = rng.integers(50, 200, (8, 8, 6)).astype(np.float32)
        values = np.repeat(np.repeat(np.repeat(coarse, 4, 0), 4, 1), 3, 2)
        kind = "normal" if number < 5 else "anomalous"
        nib.save(nib.nifti1.Nifti1Image(values, np.eye(4)), root / kind / f"v{number}.nii.gz")
        if kind == "anomalous" and number != 7:
            mask = np.zeros(values.shape, np.uint8)
            mask[8:16, 8:16, 6:12] = 1
            nib.save(nib.nifti1.Nifti1Image(mask, np.eye(4)), root / "masks" / f"v{number}.nii.gz")
    report = prepared(root, tmp_path / "out")[0]
    dataset = Dataset(Path(report.path))
    assert set(dataset.table["patient"]) <= {f"normal/v{k}" for k in range(5)} | {"anomalous/v5", "anomalous/v6"}
    assert dataset.has_mask().sum() == dataset.table["label"].sum() > 0
    assert any(f["fault"] == "no-label" and f["where"] == "anomalous/v7" for f in report.findings)
    assert dataset.table.groupby("patient")["split"].nunique().max() == 1


def test_pictures_and_volumes_in_one_folder_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "ward" / "normal" / "a.png")
    (tmp_path / "ward" / "anomalous").mkdir()
    nib.save(nib.nifti1.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "ward" / "normal" / "b.nii")
    with pytest.raises(DownloadError, match="1 NIfTI volumes among 2 files"):
        recognise(tmp_path / "ward")


# --- links and loops


def test_links_that_lead_out_are_left_alone_or_quarantined_in_one_line(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "away", seed=8, masks=False)
    write_own_folder(tmp_path / "data" / "ward", seed=9, masks=False)
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "away")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "ward" / "normal" / "case00.png").unlink()
    normal = tmp_path / "data" / "ward" / "normal"
    (normal / "case00.png").symlink_to(tmp_path / "away" / "normal" / "case00.png")
    (normal / "again").symlink_to(tmp_path / "data" / "ward")
    downloads, left_alone = recognise(tmp_path / "data")
    assert [item.root.name for item in downloads] == ["ward"]
    assert {item.name: item.reason.split(";")[0] for item in left_alone} == {
        "linked": "a link out of the folder", "loop": "a link back into the folder",
    }  # fmt: skip
    report = prepared(tmp_path / "data", tmp_path / "out", allow=frozenset({"smaller"}))[0]
    assert report.quarantined == {
        "normal/case00": "case00.png: a link that leads out of the download; put the file itself there"
    }
