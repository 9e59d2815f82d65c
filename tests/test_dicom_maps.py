"""Maps of DICOM images as DICOM objects, of both forms."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, ParametricMapStorage, generate_uid
from test_score_forms import dicom_ward, score, write_dicom  # noqa: F401 - a fixture

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import RawImage
from medfsad_bench.own_images.dicom_maps import DicomForm, DicomMaps, check_form
from medfsad_bench.own_images.pictures import MapScale
from medfsad_bench.own_images.reading import Reader, ReadingOptions

pytest.importorskip("highdicom", reason="maps as DICOM take the extra [dicom]")
FORMS: tuple[DicomForm, ...] = ("capture", "parametric")
SCALE = MapScale(0.2, 0.6, "supports")
MAP = np.random.default_rng(1).random((64, 64), np.float32)
PLACE = {
    "FrameOfReferenceUID": generate_uid(),
    "ImagePositionPatient": [-10, -20, 30],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.7, 0.7],
    "SliceThickness": 5,
}


def source(path: Path, **header: Any) -> pydicom.FileDataset:
    """A CT image of 48 × 40 px with more or another header."""
    write_dicom(path, seed=0, patient="DOE77")
    dataset = pydicom.dcmread(path)
    for name, value in header.items():
        setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def as_dataset(header: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    for name, value in header.items():
        setattr(dataset, name, value)
    return dataset


def written(path: Path, form: DicomForm, *, crop: str = "none", frame: int = 0, frames: int = 1) -> pydicom.FileDataset:
    image = RawImage(id=path.name, path=path, label="", patient="", frame=frame, frames=frames)
    reader = Reader([image], ReadingOptions(64, crop=crop), path.parent / "staging")  # type: ignore[arg-type]
    maps = DicomMaps(form, [image], reader, SCALE, "key")
    return pydicom.dcmread(path.parent / maps(image, MAP, path.parent))


def test_a_parametric_map_holds_the_maps_own_values_where_its_source_lies(tmp_path: Path) -> None:
    image = source(tmp_path / "1.dcm", **PLACE)
    made = written(tmp_path / "1.dcm", "parametric")
    assert made.SOPClassUID == ParametricMapStorage
    expected = np.asarray(Image.fromarray(MAP).resize((40, 48), Image.Resampling.BILINEAR))
    assert made.pixel_array.dtype == np.float32
    np.testing.assert_array_equal(np.squeeze(made.pixel_array), expected)
    groups, of_frame = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence[0]
    assert made.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert of_frame.PlanePositionSequence[0].ImagePositionPatient == [-10, -20, 30]
    assert "SpacingBetweenSlices" not in groups.PixelMeasuresSequence[0]
    values = groups.RealWorldValueMappingSequence[0]
    assert values.DoubleFloatRealWorldValueFirstValueMapped == expected.min()
    window = groups.FrameVOILUTSequence[0]
    assert (window.WindowCenter, window.WindowWidth) == pytest.approx((0.6, 0.8))


@pytest.mark.parametrize("form", FORMS)
def test_it_refers_to_its_source_and_is_of_the_same_study_with_new_uids(tmp_path: Path, form: DicomForm) -> None:
    image = source(tmp_path / "1.dcm", **PLACE)
    made = written(tmp_path / "1.dcm", form)
    assert (made.PatientID, made.PatientName, made.StudyInstanceUID) == ("DOE77", "DOE77^Name", image.StudyInstanceUID)
    assert {made.SOPInstanceUID, made.SeriesInstanceUID}.isdisjoint({image.SOPInstanceUID, image.SeriesInstanceUID})
    references = [made.SourceImageSequence[0]]
    if form == "parametric":
        references.append(made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0])
        references += made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    for reference in references:
        assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == image.SOPClassUID
    assert made.ImageType[0] == "DERIVED"
    assert "research use" in made.SeriesDescription
    assert written(tmp_path / "1.dcm", form).SOPInstanceUID == made.SOPInstanceUID


def test_of_a_file_of_several_frames_the_map_lies_where_its_own_frame_does(tmp_path: Path) -> None:
    frames = []
    for z in (0.0, 3.0, 6.0):
        position = as_dataset({"ImagePositionPatient": [0, 0, z]})
        plane = as_dataset({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]})
        measures = as_dataset({"PixelSpacing": [1, 2], "SliceThickness": 3, "SpacingBetweenSlices": 3})
        frames.append(
            as_dataset(
                {
                    "PlanePositionSequence": [position],
                    "PlaneOrientationSequence": [plane],
                    "PixelMeasuresSequence": [measures],
                }
            )
        )
    source(
        tmp_path / "mr.dcm",
        SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=3,
        FrameOfReferenceUID=generate_uid(),
        SharedFunctionalGroupsSequence=[Dataset()],
        PerFrameFunctionalGroupsSequence=frames,
        PixelData=np.zeros((3, 48, 40), np.uint16).tobytes(),
    )
    made = written(tmp_path / "mr.dcm", "parametric", frame=1, frames=3)
    shared, of_frame = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence[0]
    assert of_frame.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 3]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [0, 1, 0, 0, 0, -1]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [1, 2]
    reference = of_frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert (reference.ReferencedSOPClassUID, reference.ReferencedFrameNumber) == (EnhancedMRImageStorage, 2)
    assert made.SourceImageSequence[0].ReferencedFrameNumber == 2


def test_where_only_the_field_of_view_was_scored_the_map_lies_on_it_alone(tmp_path: Path) -> None:
    pixels = np.zeros((60, 100), np.uint16)
    pixels[10:50, 50:90] = np.where(np.hypot(*np.mgrid[-20:20, -20:20]) < 20, 2000, 0)
    eye = {**PLACE, "Rows": 60, "Columns": 100, "PixelData": pixels.tobytes()}
    source(tmp_path / "eye.dcm", **eye)
    covered = written(tmp_path / "eye.dcm", "capture", crop="fundus").pixel_array
    plain = written(tmp_path / "eye.dcm", "capture").pixel_array
    assert covered[:9].max() == covered[:, :49].max() == 0
    assert covered[20:40, 60:80].max() > 0
    assert plain[:, :49].max() > 0
    made = written(tmp_path / "eye.dcm", "parametric", crop="fundus")
    values = np.squeeze(made.pixel_array)
    inside = values != np.float32(made.FloatPixelPaddingValue)
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((10, 49, 50, 89), abs=1)
    assert values[inside].min() >= MAP.min()


@pytest.mark.parametrize("form", FORMS)
def test_a_header_without_what_may_be_empty_is_taken(tmp_path: Path, form: DicomForm) -> None:
    source(tmp_path / "1.dcm", **PLACE)
    dataset = pydicom.dcmread(tmp_path / "1.dcm")
    for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber", "StudyID"):
        delattr(dataset, name)
    dataset.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    made = written(tmp_path / "1.dcm", form)
    assert made.StudyInstanceUID == dataset.StudyInstanceUID
    assert not made.PatientID


@pytest.mark.parametrize("form", FORMS)
def test_the_validator_and_another_toolkit_take_it(tmp_path: Path, form: DicomForm) -> None:
    if shutil.which("dciodvfy") is None or shutil.which("dcmdump") is None:
        pytest.skip("needs dciodvfy and dcmdump (Debian: dicom3tools, dcmtk)")
    source(tmp_path / "1.dcm", **PLACE)
    written(tmp_path / "1.dcm", form)
    path = tmp_path / "dicom" / "1.dcm.anomaly.dcm"
    validated = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert [line for line in (validated.stdout + validated.stderr).splitlines() if line.startswith("Error")] == []
    assert subprocess.run(["dcmdump", path], capture_output=True, check=False).returncode == 0


def test_an_image_without_a_place_in_the_patient_gets_a_line_instead(dicom_ward: Path) -> None:  # noqa: F811
    outcome = score(dicom_ward, dicom_map="parametric")
    row = outcome.table.iloc[0]
    assert "has no FrameOfReferenceUID" in row["warnings"]
    assert "--dicom-map capture" in row["warnings"]
    assert (dicom_ward / "out" / row["overlay"]).is_file()
    assert any("1 maps couldn't be written as DICOM" in note for note in outcome.settings["notes"])


def test_what_was_asked_for_and_cannot_be_is_told(
    dicom_ward: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.fromarray(np.eye(48, dtype=np.uint8) * 200).save(dicom_ward / "plain.png")
    outcome = score(dicom_ward, images=[dicom_ward / "plain.png"], dicom_map="parametric")
    assert "--dicom-map parametric: no image is DICOM, so nothing was written." in outcome.settings["notes"]
    monkeypatch.setattr("medfsad_bench.own_images.dicom_maps.find_spec", lambda _: None)
    with pytest.raises(DownloadError, match=r"pip install 'medfsad\[dicom\]'"):
        check_form("parametric")
    check_form(None)
