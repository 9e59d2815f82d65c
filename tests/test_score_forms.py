"""`medfsad score` in each form that images come in: NIfTI and DICOM are answered in their own form."""

import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from conftest import Silent, write_own_folder
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medfsad_bench.errors import DownloadError
from medfsad_bench.own_images.folder import Outcome, ScoreOptions, score_folder
from medfsad_bench.own_images.inputs import SliceChoice, images_in
from medfsad_bench.own_images.reading import ReadingOptions
from medfsad_bench.own_images.trained import MethodOptions
from medfsad_bench.readers import read_volume

PIXELS = MethodOptions("pixel_distance", device="cpu")
ALL = SliceChoice()


def score(root: Path, **options: object) -> Outcome:
    given = {"support": [root / "support"], "images": [root / "new"], "method": PIXELS, **options}
    return score_folder(ScoreOptions(out=root / "out", reading=ReadingOptions(64), **given), Silent())  # type: ignore[arg-type]


def volume_in(orientation: str, *, lesion: bool, seed: int) -> nib.Nifti1Image:
    """A block of noise on an oblique grid of 3 × 2 × 4 mm, its axes in any order; the lesion is at the front left."""
    rng = np.random.default_rng(seed)
    x, y, z = np.mgrid[:30, :40, :8]
    values = (100 + 10 * rng.standard_normal((30, 40, 8))).astype(np.float32)
    values[27:] = 500  # as bone: the range of grey values is the same in all volumes
    if lesion:
        values[(x - 8) ** 2 + (y - 30) ** 2 + 4 * (z - 4) ** 2 < 30] = 400
    turn = np.array([[0.98, -0.17, 0.0], [0.17, 0.98, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([3.0, 2.0, 4.0]), (-40, -35, 10)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    wanted = nib.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "AIL"])
def test_the_map_of_a_volume_lies_over_it_whatever_its_axes(tmp_path: Path, orientation: str) -> None:
    for name in ("support", "new"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        nib.save(volume_in("RAS", lesion=False, seed=seed), tmp_path / "support" / f"n{seed}.nii")
    image = volume_in(orientation, lesion=True, seed=9)
    nib.save(image, tmp_path / "new" / "case.nii.gz")
    table = score(tmp_path).table
    answer: Any = nib.load(tmp_path / "out" / "maps" / "case_anomaly.nii.gz")
    values = np.asarray(answer.dataobj)
    assert answer.shape == image.shape
    np.testing.assert_allclose(answer.affine, image.affine, atol=1e-5)
    assert answer.header.get_xyzt_units()[0] == "mm"
    lesion = np.argwhere(np.asarray(image.dataobj) == 400).mean(0)
    highest = np.argwhere(values > 0.9 * values.max()).mean(0)
    in_mm = (nib.affines.apply_affine(image.affine, point) for point in (lesion, highest))
    assert np.linalg.norm(np.subtract(*in_mm)) < 8
    assert len(table) == 8
    assert table.sort_values("score")["slice"].iloc[-1] in (3, 4, 5)


def test_a_volume_counts_once_for_the_threshold(tmp_path: Path) -> None:
    for name in ("support", "new"):
        (tmp_path / name).mkdir()
    for seed in range(4):
        nib.save(volume_in("RAS", lesion=False, seed=seed), tmp_path / "support" / f"n{seed}.nii")
    nib.save(volume_in("RAS", lesion=False, seed=7), tmp_path / "new" / "x.nii")
    outcome = score(tmp_path, slices=SliceChoice.of("every 3"))
    assert len(outcome.settings["supports"]) == 4 * 3
    assert outcome.settings["level"] == pytest.approx(1 / 5)
    assert outcome.table["slice"].tolist() == [0, 3, 6]


@pytest.mark.parametrize("orientation", ["RAS", "SAR", "AIL"])
def test_axial_slices_are_counted_along_the_body(tmp_path: Path, orientation: str) -> None:
    nib.save(volume_in(orientation, lesion=False, seed=0), tmp_path / "x.nii.gz")
    slices = images_in([tmp_path], ALL, option="--images", unpack_to=tmp_path / "zip").images
    assert len(slices) == read_volume(tmp_path / "x.nii.gz").array.shape[2] == 8
    assert [image.slice_index for image in slices] == list(range(8))


def write_dicom(path: Path, *, seed: int, patient: str, lesion: bool = False) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientID, ds.PatientName, ds.Modality, ds.StudyID = patient, f"{patient}^Name", "CT", "1"
    ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyDate, ds.StudyTime = "20240102", "101010"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 48, 40, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope = 1000, 2000, 0, 1
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    pixels = (900 + 60 * np.random.default_rng(seed).standard_normal((48, 40))).astype(np.uint16)
    if lesion:
        pixels[10:20, 10:20] = 1900
    ds.PixelData = pixels.tobytes()
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def dicom_ward(tmp_path: Path) -> Path:
    for name in ("support", "new"):
        (tmp_path / name).mkdir()
    for number in range(4):
        write_dicom(tmp_path / "support" / f"{number}.dcm", seed=number, patient=f"SUP{number}")
    write_dicom(tmp_path / "new" / "1.2.840.7", seed=9, patient="DOE77", lesion=True)
    return tmp_path


def test_the_map_of_a_dicom_image_refers_to_it_and_keeps_patient_and_study(dicom_ward: Path) -> None:
    pytest.importorskip("highdicom", reason="maps as DICOM take the extra [dicom]")
    row = score(dicom_ward).table.iloc[0]
    source = pydicom.dcmread(dicom_ward / "new" / "1.2.840.7")
    capture = pydicom.dcmread(dicom_ward / "out" / row["dicom"])
    assert (capture.PatientID, capture.StudyInstanceUID) == ("DOE77", source.StudyInstanceUID)
    assert {capture.SOPInstanceUID, capture.SeriesInstanceUID}.isdisjoint(
        {source.SOPInstanceUID, source.SeriesInstanceUID}
    )
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
    assert "research use" in capture.DerivationDescription
    assert list(capture.PatientOrientation) == ["L", "P"]
    assert capture.pixel_array.shape == (48, 40, 3)


def test_no_header_of_a_patient_is_in_table_or_report_unless_asked_for(dicom_ward: Path) -> None:
    score(dicom_ward)
    texts = [path.read_text("utf-8") for path in (dicom_ward / "out").glob("*.*") if path.suffix != ".parquet"]
    assert len(texts) == 3
    assert not any("DOE77" in text or "SUP1" in text for text in texts)
    named = score_folder(
        ScoreOptions(
            [dicom_ward / "support"],
            [dicom_ward / "new"],
            dicom_ward / "named",
            PIXELS,
            ReadingOptions(64),
            with_ids=True,
        ),
        Silent(),
    )
    assert named.table["patient"].tolist() == ["DOE77"]


def test_dicom_supports_of_one_patient_set_no_threshold(dicom_ward: Path) -> None:
    for number in range(4):
        write_dicom(dicom_ward / "support" / f"{number}.dcm", seed=number, patient="SAME")
    outcome = score(dicom_ward)
    assert outcome.settings["threshold"] is None
    assert any("of one patient" in note for note in outcome.settings["notes"])


def test_zip_files_are_taken_as_folders_are(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=1, masks=False, normal=6, anomalous=2)
    (tmp_path / "ward" / "normal").rename(tmp_path / "support")
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for path in (tmp_path / "ward" / "anomalous").iterdir():
            archive.write(path, f"inner/{path.name}")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no archive")
    outcome = score(tmp_path, images=[tmp_path / "new.zip", tmp_path / "broken.zip"])
    assert outcome.table["file"].tolist() == ["new.zip/inner/case06.png", "new.zip/inner/case07.png"]
    assert [item.name for item in outcome.left_out] == ["broken.zip"]


def test_slices_are_chosen_by_words() -> None:
    assert list(SliceChoice.of("every 4").numbers(10)) == [0, 4, 8]
    assert list(SliceChoice.of("central").numbers(9)) == [4]
    for wrong in ("every", "every 0", "some", ""):
        with pytest.raises(DownloadError, match="--slices"):
            SliceChoice.of(wrong)
