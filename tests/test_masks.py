"""Masks: which pixels count, whatever the form and the values in which a lesion was saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from test_dicom import write

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import read_mask, read_masks

Y, X = np.ogrid[:60, :50]
LESION = (Y - 25) ** 2 + (X - 20) ** 2 < 90
CORE = (Y - 25) ** 2 + (X - 20) ** 2 < 20
WHITE = (LESION * 255).astype(np.uint8)


def save(path: Path, values: np.ndarray | Image.Image, **options: Any) -> Path:
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)
    return path


def palette_image(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image = Image.frombytes("P", image.size, indices.astype(np.uint8).tobytes())
    image.putpalette(colours + [0] * (768 - len(colours)))
    return image


@pytest.mark.parametrize("value", [1, 2, 128, 254, 255])
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_any_single_value_is_the_lesion(tmp_path: Path, value: int, suffix: str) -> None:
    mask = read_mask(save(tmp_path / f"a.{suffix}", (LESION * value).astype(np.uint8)))
    assert np.array_equal(mask.pixels, LESION)
    assert mask.warnings == ()


@pytest.mark.parametrize("depth", [1, 16])
def test_one_bit_and_sixteen_bits_are_masks_too(tmp_path: Path, depth: int) -> None:
    values = LESION if depth == 1 else (LESION * 40000).astype(np.uint16)
    assert np.array_equal(read_mask(save(tmp_path / "a.png", values)).pixels, LESION)
    if depth == 16:  # RGB of 16 bits, of which a decoder that keeps the upper byte would lose label 1
        import imagecodecs

        colours = np.repeat((LESION * 1).astype(np.uint16)[..., None], 3, axis=2)
        (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(colours))
        assert np.array_equal(read_mask(tmp_path / "rgb.png").pixels, LESION)


@given(quality=st.integers(20, 100), radius=st.integers(4, 20), colour=st.booleans())
def test_jpeg_is_cut_at_half_of_its_range(
    tmp_path_factory: pytest.TempPathFactory, quality: int, radius: int, colour: bool
) -> None:
    """What the cut may miss lies on the outline: at most as many pixels as it is long."""
    lesion = radius**2 > (Y - 25) ** 2 + (X - 25) ** 2
    image = Image.fromarray((lesion * 255).astype(np.uint8))
    path = save(tmp_path_factory.mktemp("jpeg") / "a.jpg", image.convert("RGB") if colour else image, quality=quality)
    mask = read_mask(path)
    assert (mask.pixels != lesion).sum() <= 2 * np.pi * radius * 0.2 + 2
    with Image.open(path) as coded:
        exact = len(np.unique(np.asarray(coded.convert("L")))) <= 2
    assert exact or "lossily coded" in mask.warnings[0]


def test_jpeg_saved_again_as_png_is_cut_too(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", WHITE, quality=90)
    with Image.open(tmp_path / "a.jpg") as coded:
        mask = read_mask(save(tmp_path / "a.png", coded))
    assert (mask.pixels != LESION).sum() <= 2
    assert mask.warnings == ("soft mask cut at one half (127.5 of 255)",)


def test_an_empty_jpeg_is_an_empty_mask(tmp_path: Path) -> None:
    assert not read_mask(save(tmp_path / "a.jpg", np.zeros_like(WHITE))).pixels.any()


@pytest.mark.parametrize("values", [LESION * 1 + CORE * 1, LESION * 100 + CORE * 155])
def test_labels_in_jpeg_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(DownloadError, match=r"a\.jpg: the mask holds .* coded lossily"):
        read_mask(save(tmp_path / "a.jpg", values.astype(np.uint8), quality=95))


@pytest.mark.parametrize(
    ("inner", "outer", "listed"),
    [(2, 1, "1, 2"), (255, 128, "128, 255"), (85, 170, "85, 170"), (1, 255, "1, 255"), (4, 2, "2, 4")],
)
def test_labels_are_any_but_the_background_and_listed(tmp_path: Path, inner: int, outer: int, listed: str) -> None:
    values = np.where(CORE, inner, LESION * outer).astype(np.uint8)
    mask = read_mask(save(tmp_path / "a.png", values))
    assert np.array_equal(mask.pixels, LESION)
    assert mask.warnings == (f"several labels of a mask count as one anomaly ({listed})",)


def test_colours_are_labels_on_black(tmp_path: Path) -> None:
    values = np.zeros((60, 50, 3), np.uint8)
    values[LESION] = (255, 0, 0)
    assert read_mask(save(tmp_path / "one.png", values)).warnings == ()
    values[CORE] = (0, 0, 1)
    mask = read_mask(save(tmp_path / "two.png", values))
    assert np.array_equal(mask.pixels, LESION)
    assert "(#000001, #ff0000)" in mask.warnings[0]


@pytest.mark.parametrize(
    ("colours", "noted"), [([0, 0, 0, 255, 0, 0], False), ([0, 0, 0, 0, 0, 0], True), ([68, 1, 84, 253, 231, 37], True)]
)
def test_palettes_count_by_index_whatever_their_colours(tmp_path: Path, colours: list[int], noted: bool) -> None:
    for name in ("a.png", "a.gif", "a.tif"):
        if name == "a.gif" and colours[:3] != [0, 0, 0]:
            continue  # writers of GIF sort the palette
        mask = read_mask(save(tmp_path / name, palette_image(LESION.astype(np.uint8), colours)))
        assert name == "a.gif" or np.array_equal(mask.pixels, LESION), name
        assert name == "a.gif" or bool(mask.warnings) == noted, name


def test_alpha_is_left_aside_unless_it_alone_holds_the_lesion(tmp_path: Path) -> None:
    colours = np.stack([WHITE, WHITE, WHITE, np.full_like(WHITE, 255)], axis=-1)
    colours[:30, :, 3] = 90
    assert np.array_equal(read_mask(save(tmp_path / "a.png", colours)).pixels, LESION)
    assert np.array_equal(read_mask(save(tmp_path / "b.png", colours[..., [0, 3]])).pixels, LESION)
    alone = np.stack([*[np.full_like(WHITE, 255)] * 3, WHITE], axis=-1)
    with pytest.raises(DownloadError, match="only their transparency differs"):
        read_mask(save(tmp_path / "c.png", alone))


@given(sigma=st.floats(0.5, 2), scale=st.sampled_from([255, 65535]))
def test_smooth_edges_are_cut_at_one_half(tmp_path_factory: pytest.TempPathFactory, sigma: float, scale: int) -> None:
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(LESION.astype(float), sigma)
    values = np.rint(soft * scale).astype(np.uint8 if scale == 255 else np.uint16)
    mask = read_mask(save(tmp_path_factory.mktemp("soft") / "a.png", values))
    assert np.array_equal(mask.pixels, values >= scale / 2)
    assert "soft mask cut at one half" in mask.warnings[0]


def test_probabilities_are_cut_at_one_half(tmp_path: Path) -> None:
    probabilities = np.exp(-((Y - 25) ** 2 + (X - 20) ** 2) / 100).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", probabilities)
    assert np.array_equal(read_mask(tmp_path / "a.tif").pixels, probabilities >= 0.5)


def refused_masks() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0)
    picture = noise.normal(120, 40, (60, 50)).clip(1, 255).astype(np.uint8)
    head = np.where(LESION, picture, 0).astype(np.uint8)
    return {
        "picture": picture,
        "head": head,
        "inverted labels": np.where(LESION, 1, 2).astype(np.uint8),
        "no full scale": np.rint(np.asarray(Image.fromarray(WHITE).filter(ImageFilter.GaussianBlur(1))) * 0.4)
        .clip(0, 100)
        .astype(np.uint8),
        "colour picture": noise.integers(0, 256, (60, 50, 3), np.uint8),
    }


@pytest.mark.parametrize("kind", sorted(refused_masks()))
def test_what_is_no_mask_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DownloadError, match=r"^a\.png: the mask holds \d+ different values \(.*Expected 0 ") as caught:
        read_mask(save(tmp_path / "a.png", refused_masks()[kind]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_white_is_zero_counts_the_right_way_round(tmp_path: Path, bits: int) -> None:
    """Stored 0 is white, and white is the lesion."""
    values = {1: ~LESION, 8: 255 - WHITE, 16: (65535 - LESION * 65535).astype(np.uint16)}[bits]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert np.array_equal(read_mask(tmp_path / "a.tif").pixels, LESION)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_masks_are_read_by_their_stored_values(tmp_path: Path, photometric: str) -> None:
    stored = LESION if photometric == "MONOCHROME2" else ~LESION
    values = (stored * 4095).astype(np.uint16)
    path = write(
        tmp_path / "a.dcm", values, PhotometricInterpretation=photometric, WindowCenter="9000", WindowWidth="2"
    )
    assert np.array_equal(read_mask(path).pixels, LESION)


def test_frames_and_pages_are_paired_and_anything_else_is_refused(tmp_path: Path) -> None:
    shifted = [np.roll(WHITE, 3 * frame, axis=1) for frame in range(3)]
    tifffile.imwrite(tmp_path / "pages.tif", np.stack(shifted), photometric="minisblack")
    write(tmp_path / "frames.dcm", np.stack(shifted), bits=8)
    for name in ("pages.tif", "frames.dcm"):
        for frame in range(3):
            mask = read_mask(tmp_path / name, frame=frame, frames=3)
            assert np.array_equal(mask.pixels, shifted[frame] > 0), name
    save(tmp_path / "one.png", WHITE)
    with pytest.raises(DownloadError, match=r"one\.png: the mask holds one frame, its image 3 frames"):
        read_mask(tmp_path / "one.png", frame=2, frames=3)
    with pytest.raises(DownloadError, match=r"pages\.tif: the mask holds 3 frames, its image one frame"):
        read_mask(tmp_path / "pages.tif")


def test_fractional_segmentations_are_cut_at_half_of_their_scale(tmp_path: Path) -> None:
    values = (LESION * 60 + CORE * 60).astype(np.uint8)
    path = write(tmp_path / "a.dcm", values, bits=8, SegmentationType="FRACTIONAL", MaximumFractionalValue=200)
    assert np.array_equal(read_mask(path).pixels, CORE)


def test_several_masks_of_an_image_are_united(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.png", WHITE), save(tmp_path / "b.png", WHITE[::-1].copy())]
    assert np.array_equal(read_masks(paths).pixels, LESION | LESION[::-1])
    small = save(tmp_path / "c.png", WHITE[:9])
    with pytest.raises(DownloadError, match=r"c\.png: the mask is 50 × 9 px, a\.png of the same image 50 × 60"):
        read_masks([*paths, small])


def test_a_nifti_mask_of_a_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"anything")
    with pytest.raises(DownloadError, match="which way up"):
        read_mask(tmp_path / "a.nii.gz")
