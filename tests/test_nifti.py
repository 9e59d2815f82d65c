"""NIfTI volumes: physical values in RAS+, slices the radiological way up, masks on the image's grid or refused."""

import csv
import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import Intensity, axial_mask, axial_picture, display_range, read_volume, read_volume_mask

RAS = np.diag([2.0, 1.0, 3.0, 1.0])
# Refused: RGBA isn't scalar but is read as luminance, so only these are left.
REFUSED = {
    "analyze.hdr": "No such file",  # the .img isn't there
    "nifti1.hdr": "No such file",
    "nifti2.hdr": "No such file",
    "row_major.dconn.nii": "dimensions|can't be read|no NIfTI volume|voxels",  # CIFTI: a connectivity matrix
}
NOT_SIMPLEITK = {
    "example_nifti2.nii.gz": "SimpleITK reads no NIfTI-2",
    "CIT168.nii.gz": "colours, which are compared below",
    "atl-Anatom.nii.gz": "as above",
    "Thalamus_Nuclei-HCP-4DSPAMs_paqd.nii.gz": "as above",
}


def labelled(shape: tuple[int, int, int] = (5, 6, 4)) -> np.ndarray:
    """A volume in RAS+ whose brightest voxel lies to the right, in front, on top."""
    values = np.random.default_rng(2).integers(1, 90, shape).astype(np.int16)
    values[-1, -1, -1] = 100
    return values


def marked(shape: tuple[int, ...]) -> np.ndarray:
    """A mask with a block in its corner."""
    values = np.zeros(shape, np.uint8)
    values[2:4, 2:5, 1:3] = 1
    return values


def save(path: Path, values: np.ndarray, affine: np.ndarray = RAS, kind: type = nib.nifti1.Nifti1Image) -> Path:
    nib.save(kind(values, affine), path)
    return path


@pytest.mark.shared
@pytest.mark.slow
def test_the_real_volumes_hold_what_simpleitk_reads_and_reorients(shared: Path) -> None:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    root, refused, compared = shared / "data" / "nifti", {}, 0
    with (root / "inventory.csv").open(newline="") as file:
        paths = [root / row["file"] for row in csv.DictReader(file)]
    for path in paths:
        try:
            volume = read_volume(path)
        except DownloadError as error:
            refused[path.name] = str(error)
            continue
        if path.name in NOT_SIMPLEITK:
            continue
        image = sitk.ReadImage(str(path))
        image = sitk.DICOMOrient(image[:, :, :, 0] if image.GetDimension() == 4 else image, "RAS")
        theirs = np.nan_to_num(sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(float))
        assert volume.array.shape == theirs.shape, path.name
        assert np.abs(volume.array - theirs).max() <= 1e-6 * np.abs(theirs).max(), path.name
        assert volume.spacing_mm == pytest.approx(image.GetSpacing(), abs=1e-4), path.name
        compared += 1
    assert set(refused) == set(REFUSED)
    assert compared == len(paths) - len(REFUSED) - len(NOT_SIMPLEITK) == 29


@pytest.mark.shared
def test_colours_are_shown_as_pillows_luminance(shared: Path) -> None:
    from PIL import Image

    path = shared / "data" / "nifti" / "niivue-demo-images" / "CIT168" / "CIT168.nii.gz"
    volume = read_volume(path)
    image = nib.as_closest_canonical(nib.load(path))
    voxels = np.asarray(image.dataobj)
    rgb = np.stack([voxels[name] for name in "RGB"], axis=-1)[:, :, 27]
    assert np.abs(volume.array[:, :, 27] - np.asarray(Image.fromarray(rgb).convert("L"), float)).max() <= 1
    assert display_range(volume, Intensity()) == (0, 255, ())


@pytest.mark.parametrize("turned", ["LAS", "LPS", "PSR", "SAL", "IRP"])
def test_every_orientation_comes_back_in_ras(tmp_path: Path, turned: str) -> None:
    image = nib.nifti1.Nifti1Image(labelled(), RAS)
    there = nib.orientations.ornt_transform(nib.io_orientation(RAS), nib.orientations.axcodes2ornt(turned))
    nib.save(image.as_reoriented(there), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.array, labelled())
    assert volume.spacing_mm == (2, 1, 3)


def test_a_slice_is_shown_with_the_front_up_and_the_patients_right_on_the_left(tmp_path: Path) -> None:
    values = np.zeros((5, 6, 3), np.int16)
    values[4, 5, 1] = 100  # the patient's right, in front
    volume = read_volume(save(tmp_path / "a.nii", values))
    picture = axial_picture(volume, 1, intensity=Intensity("window", 0, 100))
    assert picture.pixels.shape == (6, 5)
    assert picture.pixels[0, 0] == 255
    assert picture.spacing_mm == (1, 2)
    assert np.array_equal(axial_mask(volume.array > 0, 1), picture.pixels > 0)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.nifti1.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), RAS)
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([0.5, -3], "<f4").tobytes()  # nibabel rescales what it saves; write what is meant
    raw[352:] = np.arange(24, dtype="<i2").reshape(2, 3, 4).tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    assert read_volume(tmp_path / "a.nii").array[1, 2, 3] == 23 * 0.5 - 3


def test_pairs_big_endian_integers_of_64_bits_and_nan_are_read(tmp_path: Path) -> None:
    expected = labelled()
    save(tmp_path / "pair.img", expected, kind=nib.nifti1.Nifti1Pair)
    assert np.array_equal(read_volume(tmp_path / "pair.hdr").array, expected)
    header = nib.nifti1.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.nifti1.Nifti1Image(expected, RAS, header), tmp_path / "big.nii")
    assert np.array_equal(read_volume(tmp_path / "big.nii").array, expected)
    nib.save(nib.nifti1.Nifti1Image(expected.astype(np.int64), RAS, dtype=np.int64), tmp_path / "long.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "long.nii.gz").array, expected)
    holes = expected.astype(np.float32)
    holes[0, 0, 0] = np.nan
    volume = read_volume(save(tmp_path / "nan.nii", holes))
    assert volume.array[0, 0, 0] == 0
    assert volume.warnings == ("values that aren't numbers set to 0",)


def test_the_first_of_several_volumes_is_taken_and_said(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "a.nii", np.stack([labelled(), 2 * labelled()], axis=3)))
    assert np.array_equal(volume.array, labelled())
    assert volume.warnings == ("first of several volumes taken (2)",)


def test_a_mask_of_another_grid_lies_where_the_lesion_is(tmp_path: Path) -> None:
    """The mask is stored left-handed, at twice the resolution and another origin; the millimetres are the same."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    values = np.zeros((10, 12, 8), np.int16)
    values[3:6, 4:8, 2:5] = 100
    image = read_volume(save(tmp_path / "image.nii", values, affine))
    fine = np.repeat(np.repeat(np.repeat(values > 0, 2, 0), 2, 1), 2, 2)[::-1].astype(np.uint8)
    turned = np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[:3, 3] = (-0.5 + 19, -0.5, -0.5)  # of the last voxel's centre
    mask = read_volume_mask(save(tmp_path / "mask.nii", fine, turned), image).voxels
    assert np.array_equal(mask, values > 0)


@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_an_oblique_or_sheared_mask_is_resampled_as_the_affines_say(tmp_path: Path, shear: float) -> None:
    """Reference: every voxel of the image looked up in the mask by its millimetres, rounded to the nearest voxel."""
    angle = np.deg2rad(25)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[0, 2] = shear
    centre = np.eye(4)
    centre[:3, 3] = (-20, -20, -10)
    grid = np.indices((40, 40, 20))
    inside = ((grid - np.array([20, 20, 10])[:, None, None, None]) ** 2).sum(axis=0) < 64
    image = read_volume(save(tmp_path / "image.nii", inside.astype(np.int16), centre))
    affine = turn @ centre
    voxels = read_volume_mask(save(tmp_path / "mask.nii", inside.astype(np.uint8), affine), image).voxels
    where = np.linalg.inv(affine) @ centre @ np.vstack([grid.reshape(3, -1), np.ones(grid[0].size)])
    index = np.rint(where[:3]).astype(int)
    valid = ((index >= 0) & (index < np.array([[40], [40], [20]]))).all(axis=0)
    expected = np.zeros(grid[0].size, bool)
    expected[valid] = inside[tuple(index[:, valid])]
    assert (voxels.ravel() != expected).sum() <= 0.002 * inside.sum(), "only ties between two voxels may differ"
    assert voxels.any()


def test_masks_that_do_not_overlap_or_are_flat_are_refused(tmp_path: Path) -> None:
    image = read_volume(save(tmp_path / "image.nii", labelled()))
    far = RAS.copy()
    far[:3, 3] = 1000
    with pytest.raises(DownloadError, match=r"doesn't overlap with image\.nii"):
        read_volume_mask(save(tmp_path / "far.nii", marked((5, 6, 5)), far), image)
    content = bytearray(save(tmp_path / "whole.nii", marked((5, 6, 4))).read_bytes())
    content[252:256] = b"\0\0\2\0"  # no qform, an sform
    content[280:328] = np.array([[2, 0, 0, 0], [2, 0, 0, 0], [0, 0, 3, 0]], np.float32).tobytes()
    (tmp_path / "flat.nii").write_bytes(bytes(content))
    with pytest.raises(DownloadError, match="flat"):
        read_volume_mask(tmp_path / "flat.nii", image)


def test_what_is_no_volume_is_refused_in_one_line(tmp_path: Path) -> None:
    flat = save(tmp_path / "flat.nii", np.zeros((5, 6), np.int16))
    complex_ = save(tmp_path / "complex.nii", np.zeros((5, 6, 3), np.complex64))
    whole = save(tmp_path / "whole.nii.gz", labelled())
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[:-40])
    huge = tmp_path / "huge.nii"
    shutil.copy(save(tmp_path / "small.nii", labelled()), huge)
    content = bytearray(huge.read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    huge.write_bytes(bytes(content))
    for path in (flat, complex_, cut, huge, tmp_path / "missing.nii"):
        with pytest.raises(DownloadError, match=rf"^{path.name}: ") as caught:
            read_volume(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_that_is_no_affine_is_refused_in_one_line(tmp_path: Path, value: float) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    path = tmp_path / "damaged.nii"
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<4f", content, 280, value, value, value, value)  # srow_x
    path.write_bytes(bytes(content))
    with pytest.raises(DownloadError, match="no number") as refused:
        read_volume(path)
    assert "\n" not in str(refused.value)
