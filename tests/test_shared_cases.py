"""Pixels and masks of odd files as people have them, against their right values; needs the shared folder."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Silent

from medfsad_bench.curation.report import SetReport
from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.errors import CurationError
from medfsad_bench.readers import read_mask, read_picture, read_volume
from medfsad_bench.store import Dataset

pytestmark = [pytest.mark.shared, pytest.mark.slow]


@pytest.fixture(scope="session")
def cases(shared: Path) -> Path:
    """Folders and files as people have them, each with a fault of its own."""
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip(f"needs the shared folder of odd cases, not found at {folder}")
    return folder


def prepared(folder: Path, out: Path, *allow: str) -> SetReport:
    (report,), _ = prepare(folder, PrepareOptions(out, size_px=96, allow=frozenset(allow)), watcher=Silent())
    return report


def mask_sizes(report: SetReport) -> list[int]:
    dataset = Dataset(Path(report.path))
    return [int(dataset.mask(int(index)).sum()) for index in np.flatnonzero(dataset.table["label"] == 1)]


@pytest.mark.parametrize(
    ("name", "noted"),
    [
        ("mask_jpeg", "lossily coded mask cut at half"),
        ("mask_palette", "palette of a mask read by its indices"),
        ("exif180_mask", "whether its mask was drawn before can't be known"),
    ],
)
def test_every_form_of_mask_marks_the_same_lesion(cases: Path, tmp_path: Path, name: str, noted: str) -> None:
    report = prepared(cases / name, tmp_path)
    assert mask_sizes(report) == [168] * 8
    assert any(noted in finding["what"] for finding in report.findings)


def test_dicom_masks_mark_the_same_lesion(cases: Path) -> None:
    paths = sorted((cases / "dicom_masks_cbis" / "masks").iterdir())
    assert [int(read_mask(path).pixels.sum()) for path in paths] == [168] * 8


def test_one_mask_for_many_frames_is_refused_and_named(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(CurationError, match=r"the image has 4 frame\(s\), its mask masks/a0\.png has 1"):
        prepared(cases / "dicom_multiframe_2d_mask", tmp_path)


@pytest.mark.parametrize("name", ["nifti_mask_onehot", "nifti_mask_identity_affine", "nifti_units_meter"])
def test_volumes_give_the_masks_of_the_sound_set(cases: Path, tmp_path: Path, name: str) -> None:
    control = prepared(cases / "nifti_control", tmp_path / "control")
    if name == "nifti_mask_identity_affine":
        with pytest.raises(CurationError, match="mask-grid"):
            prepared(cases / name, tmp_path / "stopped")
    report = prepared(cases / name, tmp_path / "out", *["mask-grid"] * (name == "nifti_mask_identity_affine"))
    sizes = mask_sizes(report)
    assert sizes
    assert set(sizes) == set(mask_sizes(control)) == {100}


def test_a_soft_mask_is_cut_at_one_half(cases: Path, tmp_path: Path) -> None:
    report = prepared(cases / "nifti_mask_resampled_linear", tmp_path)
    sizes = mask_sizes(report)
    assert max(sizes) <= 104
    assert any("soft mask cut at one half" in finding["what"] for finding in report.findings)


def test_one_damaged_volume_is_a_line(cases: Path, tmp_path: Path) -> None:
    report = prepared(cases / "nifti_one_damaged", tmp_path)
    assert list(report.quarantined) == ["normal/v3"]


def test_metres_are_millimetres(cases: Path) -> None:
    assert read_volume(cases / "nifti_units_meter" / "normal" / "v0.nii.gz").spacing_mm == pytest.approx((2, 2, 3))


def test_padding_changes_no_grey_level(cases: Path, tmp_path: Path) -> None:
    reports = [prepared(cases / name, tmp_path / name) for name in ("nifti_ct_padding", "nifti_ct_nopadding")]
    datasets = [Dataset(Path(report.path)) for report in reports]
    shared_ids = sorted(set(datasets[0].table["id"]) & set(datasets[1].table["id"]))
    assert len(shared_ids) >= 20
    padded, plain = (
        np.concatenate([dataset.images(np.flatnonzero(dataset.table["id"] == image_id)) for image_id in shared_ids])
        for dataset in datasets
    )
    tissue = (plain > 60) & (padded > 0)
    assert abs(np.median(padded[tissue].astype(int)) - np.median(plain[tissue].astype(int))) <= 2


def test_dicom_values_are_those_of_dcmtk(cases: Path) -> None:
    shifted = read_picture(cases / "dicom_highbit15" / "left_justified.dcm").pixels[0]
    assert np.abs(shifted.astype(int) - [0, 62, 124, 186, 249, 255]).max() <= 1
    eight = read_picture(cases / "dicom_highbit15" / "highbit7_of8in16.dcm").pixels[0]
    assert eight.tolist() == [0, 50, 100, 200, 250, 255]
    for name in ("m1_identity", "m2_inverse"):
        picture = read_picture(cases / "dicom_presentation_inverse" / f"{name}.dcm")
        assert "PresentationLUTShape contradicts" in picture.warnings[0]
    sixteen = read_picture(cases / "dicom_16bit_no_window" / "mr_12_of_16.dcm")
    assert "few of its bits are in use" in sixteen.warnings[0]


def test_tiff_is_what_its_tags_say(cases: Path) -> None:
    eight, sixteen = (read_picture(cases / "tiff_miniswhite" / f"w{bits}.tif").pixels for bits in (8, 16))
    assert np.abs(eight.astype(int) - sixteen).max() <= 1
    one_bit = read_picture(cases / "tiff_miniswhite" / "w1.tif").pixels > 0
    assert np.corrcoef(one_bit.ravel(), sixteen.ravel())[0, 1] > 0.5
    twelve = read_picture(cases / "tiff_12bit" / "t12.tif").pixels
    assert (int(twelve.min()), int(twelve.max())) == (30, 219)


def test_twelve_bits_in_png_are_shown_by_the_bits_in_use(cases: Path, tmp_path: Path) -> None:
    report = prepared(cases / "png16_12bits", tmp_path)
    assert any("all are shown from 0 to 4095" in finding["what"] for finding in report.findings)
    dataset = Dataset(Path(report.path))
    assert len(np.unique(dataset.images(np.array([0])))) > 100
