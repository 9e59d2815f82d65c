"""Generated raw downloads: true layouts, readable files, tables that fit, disease where the truth says it is."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from scipy.ndimage import binary_dilation

from medfsad_bench.demo import write_demo_downloads
from medfsad_bench.demo.brain import CONTRASTS, brain_phantom, brain_volume
from medfsad_bench.demo.chest import chest_phantom
from medfsad_bench.demo.fundus import glaucoma_phantom, retinopathy_phantom
from medfsad_bench.demo.histology import draw_stain, histology_phantom
from medfsad_bench.errors import DownloadError

SEED, SCALE = 3, 0.3


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "downloads"
    write_demo_downloads(folder, seed=SEED, scale=SCALE)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class TestWriting:
    def test_the_six_downloads_lie_side_by_side(self, demo: Path) -> None:
        assert sorted(path.name for path in demo.iterdir() if path.is_dir()) == [
            "BraTS2021_Training_Data",
            "Camelyon16_AD",
            "LAG_database",
            "aptos2019-blindness-detection",
            "brain-tumor-mri-dataset",
            "rsna-pneumonia-detection-challenge",
        ]
        assert "Generated phantoms" in (demo / "README.txt").read_text("utf-8")

    def test_every_download_is_recognised_as_what_it_is(self, demo: Path) -> None:
        from medfsad_bench.layouts import recognise

        downloads, left_alone = recognise(demo)
        assert sorted(item.layout for item in downloads) == [
            "aptos",
            "brain_tumor",
            "brats",
            "camelyon_patches",
            "lag",
            "rsna",
        ]
        assert left_alone == []
        for item in downloads:
            assert all(image.path.is_file() for image in item.images), item.layout
            on_disk = [p for p in item.root.rglob("*") if p.suffix in {".jpg", ".png", ".dcm"}]
            assert len(item.images) == (len(on_disk) or len(list(item.root.iterdir())))

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(self, tmp_path: Path) -> None:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            write_demo_downloads(tmp_path / name, seed=seed, scale=0.01)
        assert digests(tmp_path / "a") == digests(tmp_path / "b")
        pictures = {
            name: {digest for path, digest in digests(tmp_path / name).items() if not path.endswith(".csv")}
            for name in "ac"
        }
        assert not pictures["a"] & pictures["c"]

    def test_a_folder_that_holds_something_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("keep")
        with pytest.raises(DownloadError, match=r"not empty \(it holds 'mine.txt'\)"):
            write_demo_downloads(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_file_in_the_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "demo").write_text("keep")
        with pytest.raises(DownloadError, match="is a file"):
            write_demo_downloads(tmp_path / "demo")

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
    def test_a_scale_that_is_not_positive_is_refused(self, tmp_path: Path, scale: float) -> None:
        with pytest.raises(DownloadError, match="scale is"):
            write_demo_downloads(tmp_path / "demo", scale=scale)

    def test_an_empty_folder_is_taken_and_progress_ends_at_the_total_of_every_set(self, tmp_path: Path) -> None:
        calls: list[tuple[str, int, int]] = []
        folders = write_demo_downloads(tmp_path, scale=0.01, on_progress=lambda *call: calls.append(call))
        assert all(folder.is_dir() for folder in folders)
        last = {name: (done, total) for name, done, total in calls}
        assert len(last) == 6
        assert all(done == total for done, total in last.values())

    def test_nothing_is_left_behind_when_the_writing_breaks_off(self, tmp_path: Path) -> None:
        def stop(name: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_demo_downloads(tmp_path / "demo", scale=0.01, on_progress=stop)
        assert list(tmp_path.iterdir()) == []


class TestLayouts:
    def test_brain_files_are_named_as_in_the_real_set_and_are_grey_or_rgb(self, demo: Path) -> None:
        paths = sorted((demo / "brain-tumor-mri-dataset").rglob("*.jpg"))
        codes = {"notumor": "no", "glioma": "gl", "meningioma": "me", "pituitary": "pi"}
        for path in paths:
            side = {"Training": "Tr", "Testing": "Te"}[path.parts[-3]]
            assert re.fullmatch(rf"{side}-{codes[path.parent.name]}(Tr)?_\d{{4}}\.jpg", path.name), path
        assert {path.parent.name for path in paths} == set(codes)
        assert {opened(path).mode for path in paths} == {"L", "RGB"}
        assert len({opened(path).size for path in paths}) > 3

    def test_no_brain_file_has_a_name_of_the_real_set(self, demo: Path) -> None:
        """The committed groups of the real set go by name; its numbers end at 1594."""
        numbers = [int(path.stem[-4:]) for path in (demo / "brain-tumor-mri-dataset").rglob("*.jpg")]
        assert min(numbers) > 1594

    def test_rsna_tables_and_files_name_the_same_patients(self, demo: Path) -> None:
        root = demo / "rsna-pneumonia-detection-challenge"
        files = {path.stem for path in (root / "stage_2_train_images").glob("*.dcm")}
        labels, classes = rows(root / "stage_2_train_labels.csv"), rows(root / "stage_2_detailed_class_info.csv")
        assert {row["patientId"] for row in labels} == {row["patientId"] for row in classes} == files
        assert Counter(row["patientId"] for row in labels) == Counter(row["patientId"] for row in classes)
        opaque = {row["patientId"] for row in classes if row["class"] == "Lung Opacity"}
        assert {row["patientId"] for row in labels if row["Target"] == "1"} == opaque
        assert {row["class"] for row in classes} == {"Lung Opacity", "Normal", "No Lung Opacity / Not Normal"}

    def test_rsna_boxes_lie_inside_their_images(self, demo: Path) -> None:
        root = demo / "rsna-pneumonia-detection-challenge"
        for row in rows(root / "stage_2_train_labels.csv"):
            header = pydicom.dcmread(root / "stage_2_train_images" / f"{row['patientId']}.dcm", stop_before_pixels=True)
            if row["Target"] == "0":
                assert row["x"] == row["y"] == row["width"] == row["height"] == ""
                continue
            x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
            assert min(x, y) >= 0
            assert min(width, height) > 0
            assert x + width <= header.Columns
            assert y + height <= header.Rows

    def test_rsna_files_are_dicom_with_the_headers_of_the_real_ones(self, demo: Path) -> None:
        kinds = set()
        for path in (demo / "rsna-pneumonia-detection-challenge" / "stage_2_train_images").glob("*.dcm"):
            data = pydicom.dcmread(path)
            assert data.PatientID == path.stem
            assert data.Modality == "CR"
            assert data.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
            assert data.ViewPosition in {"PA", "AP"}
            assert data.pixel_array.shape == (data.Rows, data.Columns)
            kinds.add((data.PhotometricInterpretation, data.BitsStored, data.file_meta.TransferSyntaxUID.is_compressed))
        assert kinds == {("MONOCHROME2", 8, True), ("MONOCHROME2", 8, False), ("MONOCHROME1", 12, False)}

    def test_inverted_films_are_shown_as_the_others(self, demo: Path) -> None:
        """By pydicom's own rescale and window, MONOCHROME1 inverted: the spine is brighter than the lungs."""
        for path in (demo / "rsna-pneumonia-detection-challenge" / "stage_2_train_images").glob("*.dcm"):
            data = pydicom.dcmread(path)
            shown = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data)
            shown = -shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
            size = data.Rows
            middle = shown[size // 3 : size // 2]
            assert middle[:, int(0.47 * size) : int(0.53 * size)].mean() > middle.mean()

    def test_aptos_table_names_every_file_and_grades_from_0_to_4(self, demo: Path) -> None:
        root = demo / "aptos2019-blindness-detection"
        table = rows(root / "train.csv")
        assert sorted(row["id_code"] for row in table) == sorted(p.stem for p in (root / "train_images").glob("*.png"))
        assert all(re.fullmatch(r"[0-9a-f]{12}", row["id_code"]) for row in table)
        assert {row["diagnosis"] for row in table} <= set("01234")
        assert len({row["diagnosis"] for row in table}) > 2

    def test_aptos_borders_are_black_and_of_different_width(self, demo: Path) -> None:
        paths = (demo / "aptos2019-blindness-detection" / "train_images").glob("*.png")
        images = [np.asarray(opened(path)).max(axis=2) for path in paths]
        assert all(image[:4, :4].max() == 0 for image in images)
        assert len({round(float((image[image.shape[0] // 2] > 20).mean()), 1) for image in images}) > 2

    def test_lag_numbers_run_through_both_folders(self, demo: Path) -> None:
        root = demo / "LAG_database"
        numbers = [
            int(p.stem) for name in ("non_glaucoma", "suspicious_glaucoma") for p in (root / name / "image").iterdir()
        ]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))

    def test_histology_trains_on_normal_slides_and_tests_on_test_slides(self, demo: Path) -> None:
        root = demo / "Camelyon16_AD"
        for path in root.rglob("*.png"):
            slide = "normal" if path.parts[-3] == "train" else "test"
            assert re.fullmatch(rf"{slide}_\d{{3}}_\d+_\d+", path.stem)
            assert opened(path).size == (256, 256)
            assert opened(path).mode == "RGB"
        assert {p.relative_to(root).as_posix() for p in root.glob("*/*")} == {
            "train/good", "valid/good", "valid/Ungood", "test/good", "test/Ungood",
        }  # fmt: skip

    def test_brats_volumes_share_a_grid_and_every_patient_has_a_tumour(self, demo: Path) -> None:
        patients = sorted((demo / "BraTS2021_Training_Data").iterdir())
        for patient in patients:
            files = {path.name.removeprefix(f"{patient.name}_"): nib.nifti1.load(path) for path in patient.iterdir()}
            assert set(files) == {f"{name}.nii.gz" for name in (*CONTRASTS, "seg")}
            assert len({image.shape for image in files.values()}) == 1
            assert all(nib.aff2axcodes(image.affine) == ("L", "P", "S") for image in files.values())
            assert all(image.get_data_dtype() == np.int16 for image in files.values())
            labels = np.asarray(files["seg.nii.gz"].dataobj)
            assert set(np.unique(labels)) == {0, 1, 2, 4}
            flair = np.asarray(files["flair.nii.gz"].dataobj)
            assert (flair[labels > 0] > 0).all()
            assert np.median(flair[labels == 2]) > np.median(flair[(labels == 0) & (flair > 0)])


Pair = tuple[Float[np.ndarray, "h w *c"], Float[np.ndarray, "h w *c"], Bool[np.ndarray, "h w"]]


def glioma(seed: int) -> Pair:
    well, _ = brain_phantom(np.random.default_rng(seed), 128, contrast="t1ce")
    return well, *brain_phantom(np.random.default_rng(seed), 128, contrast="t1ce", tumour="glioma")


def meningioma(seed: int) -> Pair:
    well, _ = brain_phantom(np.random.default_rng(seed), 128, contrast="t1ce")
    return well, *brain_phantom(np.random.default_rng(seed), 128, contrast="t1ce", tumour="meningioma")


def opacity(seed: int) -> Pair:
    well, _ = chest_phantom(np.random.default_rng(seed), 128)
    ill, masks = chest_phantom(np.random.default_rng(seed), 128, finding="Lung Opacity")
    return well, ill, np.any(masks, axis=0)


def retinopathy(seed: int) -> Pair:
    well, _ = retinopathy_phantom(np.random.default_rng(seed), (160, 200), grade=0)
    return well, *retinopathy_phantom(np.random.default_rng(seed), (160, 200), grade=3)


def glaucoma(seed: int) -> Pair:
    well, _ = glaucoma_phantom(np.random.default_rng(seed), (160, 160), cup_ratio=0.3)
    return well, *glaucoma_phantom(np.random.default_rng(seed), (160, 160), cup_ratio=0.8)


def metastasis(seed: int) -> Pair:
    stain = draw_stain(np.random.default_rng(seed))
    well, _ = histology_phantom(np.random.default_rng(seed), 128, anomalous=False, stain=stain)
    return well, *histology_phantom(np.random.default_rng(seed), 128, anomalous=True, stain=stain)


class TestPhantoms:
    @pytest.mark.parametrize("disease", [glioma, meningioma, opacity, retinopathy, glaucoma, metastasis])
    @settings(max_examples=10)
    @given(seed=st.integers(0, 10_000))
    def test_disease_changes_the_image_where_its_mask_is_and_nowhere_else(
        self, disease: Callable[[int], Pair], seed: int
    ) -> None:
        well, ill, mask = disease(seed)
        change = np.abs(ill - well).reshape(*mask.shape, -1).max(axis=2)
        assert mask.any()
        assert 0 <= ill.min() <= ill.max() <= 1
        near = binary_dilation(
            mask, iterations=20 if disease is metastasis else 5
        )  # large cells thin out at the edge; blur
        assert change[mask].mean() > 0.02
        assert change[~near].max(initial=0.0) < 0.1

    @settings(max_examples=10)
    @given(seed=st.integers(0, 10_000))
    def test_healthy_phantoms_have_empty_masks(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        assert not brain_phantom(rng, 64)[1].any()
        assert chest_phantom(rng, 64)[1] == []
        assert not retinopathy_phantom(rng, (64, 64), grade=0)[1].any()
        assert not histology_phantom(rng, 64, anomalous=False, stain=draw_stain(rng))[1].any()

    def test_the_tumour_of_a_volume_lies_in_some_of_its_slices(self) -> None:
        for seed in range(4):
            volumes, labels = brain_volume(np.random.default_rng(seed), (64, 64, 32))
            touched = (labels > 0).any(axis=(0, 1))
            assert 0.05 < touched.mean() < 0.7
            assert all((volume[labels > 0] > 0).all() for volume in volumes.values())

    def test_two_healthy_people_differ(self) -> None:
        """Else near-duplicate detection, which joins what is alike, would make one group of the set."""
        films = [chest_phantom(np.random.default_rng(seed), 64)[0].ravel() for seed in range(6)]
        heads = [brain_phantom(np.random.default_rng(seed), 64)[0].ravel() for seed in range(6)]
        for set_ in (films, heads):
            assert np.corrcoef(set_)[~np.eye(6, dtype=bool)].max() < 0.97
