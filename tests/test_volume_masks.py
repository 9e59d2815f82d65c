"""Label volumes on the grid of their image: channels, soft values, lost affines; and volumes with odd values."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import Silent
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.readers import (
    Intensity,
    axial_picture,
    display_range,
    read_volume,
    read_volume_mask,
    read_volume_masks,
)
from medfsad_bench.store import Dataset

AFFINE = np.array([[2.0, 0, 0, -48], [0, 2, 0, -60], [0, 0, 3, -20], [0, 0, 0, 1]])
GRID = np.indices((24, 24, 10))
HEAD = ((GRID[0] - 12) ** 2 + (GRID[1] - 12) ** 2) < 100
LESION = ((GRID[0] - 8) ** 2 + (GRID[1] - 10) ** 2 + (GRID[2] - 5) ** 2) < 9


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, unit: str = "mm") -> Path:
    image = nib.nifti1.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def brain(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(100, 15, HEAD.shape)
    return np.where(HEAD, noise, 0).clip(0).astype(np.int16)


def mask_of(tmp_path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **options: bool) -> np.ndarray:
    image = read_volume(save(tmp_path / "image.nii", brain()))
    return read_volume_mask(save(tmp_path / "mask.nii", values, affine), image, **options).voxels


@pytest.mark.parametrize(
    ("values", "noted"),
    [
        (LESION * np.uint8(1), ""),
        (LESION * np.int16(-1), ""),  # 255 written as a signed byte
        (LESION * np.float32(1), ""),
        ((LESION * 1 + (LESION & (GRID[0] > 8)) * 3).astype(np.uint8), r"several labels .*\(1, 4\)"),
        (np.where(LESION, 0.8, 0.2).astype(np.float32), "soft mask cut at one half"),
        (np.stack([~LESION, LESION], axis=3).astype(np.uint8), "first channel .* background"),
        (np.stack([np.where(LESION, 0.3, 0.9), np.where(LESION, 0.7, 0.1)], axis=3).astype(np.float32), "background"),
        (np.stack([LESION & (GRID[0] > 8), LESION], axis=3).astype(np.uint8), "without background united"),
        (LESION[..., None].astype(np.uint8), ""),
        (np.stack([~LESION, LESION], axis=3)[:, :, :, None].astype(np.uint8), "first channel"),  # NIfTI's vectors
    ],
    ids=["0/1", "-1", "float", "labels", "two levels", "one-hot", "softmax", "regions", "4-D of one", "vectors"],
)
def test_the_lesion_is_found_in_every_form_of_labels(tmp_path: Path, values: np.ndarray, noted: str) -> None:
    image = read_volume(save(tmp_path / "image.nii", brain()))
    mask = read_volume_mask(save(tmp_path / "mask.nii", values), image)
    assert np.array_equal(mask.voxels, LESION)
    assert bool(mask.warnings) == bool(noted)
    if noted:
        assert re.search(noted, mask.warnings[0])


@pytest.mark.parametrize(
    "values",
    [
        brain(),  # the image itself
        np.stack([LESION, ~LESION], axis=3).astype(np.uint8),  # the background last
        np.stack([brain(1), brain(2)], axis=3),
        np.where(LESION, 1, 2).astype(np.uint8),  # no background
        np.where(HEAD, np.random.default_rng(0).normal(0, 4, HEAD.shape), 0).astype(np.float32),  # logits
    ],
    ids=["image", "background last", "time series", "no zero", "logits"],
)
def test_what_is_no_mask_is_refused_in_one_line(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(DownloadError, match=r"^mask\.nii: .*Expected ") as caught:
        mask_of(tmp_path, values)
    assert "\n" not in str(caught.value)


def test_linear_resampling_leaves_half_of_the_rim(tmp_path: Path) -> None:
    from scipy.ndimage import shift

    soft = shift(LESION.astype(np.float32), (0.3, -0.2, 0.1), order=1)
    assert np.array_equal(mask_of(tmp_path, soft), soft >= 0.5)
    cubic = shift(LESION.astype(np.float32), (0.3, -0.2, 0.1), order=3)  # overshoots below 0 and above 1
    assert np.array_equal(mask_of(tmp_path, cubic), cubic >= 0.5)


@given(
    offsets=st.tuples(*[st.floats(-0.28, 0.28)] * 3),
    turned=st.sampled_from(["RAS", "LAS", "LPS", "PSR"]),
)
def test_headers_rounded_by_less_than_half_a_voxel_are_the_same_grid(
    tmp_path_factory: pytest.TempPathFactory, offsets: tuple[float, ...], turned: str
) -> None:
    folder = tmp_path_factory.mktemp("grid")
    image = read_volume(save(folder / "image.nii", brain()))
    moved = AFFINE.copy()
    moved[:3, 3] += np.array(offsets) * 2
    stored = nib.nifti1.Nifti1Image(LESION.astype(np.uint8), moved)
    there = nib.orientations.ornt_transform(nib.io_orientation(moved), nib.orientations.axcodes2ornt(turned))
    nib.save(stored.as_reoriented(there), folder / "mask.nii")
    mask = read_volume_mask(folder / "mask.nii", image)
    assert np.array_equal(mask.voxels, LESION)
    assert (mask.contradiction, mask.warnings) == ("", ())


@pytest.mark.parametrize("stored", ["RAS", "LPS", "SAR"])
def test_a_lost_affine_is_a_contradiction_and_voxels_can_be_taken_one_to_one(tmp_path: Path, stored: str) -> None:
    """Image and mask are stored along the same axes, whichever these are; the tool wrote the mask with no affine."""
    there = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(stored))
    nib.save(nib.nifti1.Nifti1Image(brain(), AFFINE).as_reoriented(there), tmp_path / "image.nii")
    lesion = nib.orientations.apply_orientation(LESION.astype(np.uint8), there)
    image = read_volume(tmp_path / "image.nii")
    path = save(tmp_path / "mask.nii", lesion, np.eye(4))
    mask = read_volume_mask(path, image)
    assert "mask.nii has its image's shape, but the affine [1 0 0 0; 0 1 0 0; 0 0 1 0]; the image's is [" in (
        mask.contradiction
    )
    assert not np.array_equal(mask.voxels, LESION)
    taken = read_volume_mask(path, image, one_to_one=True)
    assert np.array_equal(taken.voxels, LESION)
    assert taken.contradiction == mask.contradiction


def test_a_mask_that_reaches_a_part_of_its_image_is_noted(tmp_path: Path) -> None:
    image = read_volume(save(tmp_path / "image.nii", brain()))
    mask = read_volume_mask(save(tmp_path / "mask.nii", LESION[:, :, :7].astype(np.uint8)), image)
    assert np.array_equal(mask.voxels, LESION & (GRID[2] < 7))
    assert mask.warnings == (
        "mask resampled to the image's grid",
        "mask doesn't reach all of its image; what it leaves counts as normal (30%)",
    )
    shifted = AFFINE.copy()
    shifted[0, 3] -= 20  # of which the lesion lies outside
    lost = read_volume_mask(save(tmp_path / "lost.nii", LESION[:20].astype(np.uint8), shifted), image)
    assert "lesion of the mask lies mostly outside" in lost.warnings[-1]


def test_several_masks_are_united(tmp_path: Path) -> None:
    image = read_volume(save(tmp_path / "image.nii", brain()))
    paths = [save(tmp_path / f"{n}.nii", part.astype(np.uint8)) for n, part in enumerate((LESION, LESION[::-1]))]
    assert np.array_equal(read_volume_masks(paths, image).voxels, LESION | LESION[::-1])


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("mm", 1.0), ("micron", 1e3), ("unknown", 1.0)])
def test_spacing_is_in_millimetres_whatever_the_unit(tmp_path: Path, unit: str, factor: float) -> None:
    scaled = np.diag([factor, factor, factor, 1]) @ AFFINE
    image = read_volume(save(tmp_path / "image.nii", brain(), scaled, unit))
    assert image.spacing_mm == pytest.approx((2, 2, 3))
    assert image.warnings == ()
    mask = read_volume_mask(save(tmp_path / "mask.nii", LESION.astype(np.uint8)), image)  # in millimetres
    assert np.array_equal(mask.voxels, LESION)


def test_a_unit_that_can_not_be_is_noted(tmp_path: Path) -> None:
    image = read_volume(save(tmp_path / "image.nii", brain(), AFFINE, "meter"))
    assert image.warnings == ("voxels larger than any scanner's: is the header's unit right? (3000 mm, unit meter)",)


@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -10000, -32768])
@pytest.mark.parametrize("blurred", [False, True])
def test_padding_of_ct_leaves_the_percentiles_as_they_are_without(
    tmp_path: Path, padding: int, *, blurred: bool
) -> None:
    from scipy.ndimage import zoom

    tissue = np.where(HEAD, brain() - 100, -1000).astype(np.int16)
    outside = (GRID[0] - 12) ** 2 + (GRID[1] - 12) ** 2 > 140
    padded = np.where(outside, padding, tissue).astype(np.int16)
    if blurred:  # resampled with its padding, as tools do
        padded, tissue = (np.rint(zoom(values, (2, 2, 1), order=1)).astype(np.int16) for values in (padded, tissue))
    percentiles = Intensity("percentiles", 0, 99.5)
    expected = display_range(read_volume(save(tmp_path / "a.nii", tissue)), percentiles)
    low, high, notes = display_range(read_volume(save(tmp_path / "b.nii", padded)), percentiles)
    assert notes == (f"padding outside of the field of view left out of the percentiles ({padding})",)
    assert abs(low - expected[0]) <= (100 if blurred else 0)
    assert abs(high - expected[1]) <= 5


def test_values_that_are_no_padding_stay(tmp_path: Path) -> None:
    """Air of -1000, and a phase map from -4096 on."""
    phase = np.random.default_rng(0).integers(-4096, 4096, HEAD.shape).astype(np.int16)
    for values in (np.where(HEAD, 40, -1000).astype(np.int16), phase):
        low, _, notes = display_range(read_volume(save(tmp_path / "a.nii", values)), Intensity("percentiles", 0, 100))
        assert (low, notes) == (values.min(), ())


def test_z_scores_with_a_zero_background_are_noted(tmp_path: Path) -> None:
    scores = np.where(HEAD, (brain() - 100) / 15, 0).astype(np.float32)
    volume = read_volume(save(tmp_path / "a.nii", scores))
    percentiles = Intensity("percentiles", 0, 99.5)
    picture = axial_picture(volume, 5, intensity=percentiles)
    assert picture.warnings == ("zero background amid the values (z-scores?) is shown grey",)
    assert axial_picture(read_volume(save(tmp_path / "b.nii", brain())), 5, intensity=percentiles).warnings == ()


def write_volumes(root: Path, *, mask_affine: np.ndarray = AFFINE) -> Path:
    for number in range(8):
        save(root / "normal" / f"v{number}.nii.gz", brain(number))
    for number in range(4):
        bright = brain(100 + number) + (LESION * 90).astype(np.int16)
        save(root / "anomalous" / f"a{number}.nii.gz", bright)
        save(root / "masks" / f"a{number}.nii.gz", LESION.astype(np.uint8), mask_affine)
    return root


def test_a_damaged_volume_or_mask_is_a_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = write_volumes(tmp_path / "raw" / "scans")
    whole = (root / "normal" / "v3.nii.gz").read_bytes()
    (root / "normal" / "v3.nii.gz").write_bytes(whole[: len(whole) // 2])
    (root / "masks" / "a1.nii.gz").write_bytes(b"nothing")
    far = AFFINE.copy()
    far[:3, 3] = 5000
    save(root / "masks" / "a2.nii.gz", LESION[:, :, :9].astype(np.uint8), far)
    (report,), _ = prepare(tmp_path / "raw", PrepareOptions(tmp_path / "out", size_px=32), watcher=Silent())
    assert sorted(report.quarantined) == ["anomalous/a1", "anomalous/a2", "normal/v3"]
    assert report.quarantined["normal/v3"].startswith("v3.nii.gz: no NIfTI volume that can be read")
    assert "doesn't overlap" in report.quarantined["anomalous/a2"]
    assert report.spare >= 0
    assert set(Dataset(Path(report.path)).table["patient"]) >= {"anomalous/a0", "anomalous/a3", "normal/v4"}


def test_a_mask_grid_stops_the_set_until_it_is_allowed(tmp_path: Path) -> None:
    write_volumes(tmp_path / "raw" / "scans", mask_affine=np.eye(4))
    out = tmp_path / "out"
    with pytest.raises(CurationError, match=r"4 fault\(s\) of kind mask-grid \(anomalous/a0: .*--allow mask-grid"):
        prepare(tmp_path / "raw", PrepareOptions(out, size_px=32), watcher=Silent())
    options = PrepareOptions(out, size_px=32, allow=frozenset({"mask-grid"}))
    (report,), _ = prepare(tmp_path / "raw", options, watcher=Silent())
    assert report.allowed == ["mask-grid"]
    control = write_volumes(tmp_path / "control" / "scans")
    (expected,), _ = prepare(control.parent, PrepareOptions(tmp_path / "other", size_px=32), watcher=Silent())
    masks, expected_masks = (
        [Dataset(Path(of_set.path)).mask(index) for index in range(3)] for of_set in (report, expected)
    )
    for mask, expected_mask in zip(masks, expected_masks, strict=True):
        assert (mask is None) == (expected_mask is None)
        assert mask is None or np.array_equal(mask, expected_mask)
