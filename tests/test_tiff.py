"""TIFF and deep PNG: every depth, sign, plane and page gives the values that were written, as its tags mean them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import Intensity, frame_count, read_picture, turned

RAMP = np.linspace(0, 1, 40 * 30).reshape(40, 30)


def shown(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The linear mapping to grey levels, in its own words."""
    return np.floor(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255 + 0.5)


@given(
    bits=st.sampled_from([8, 9, 10, 12, 14, 16]),
    form=st.sampled_from(["grey", "white is zero", "rgb", "planes"]),
    layout=st.sampled_from([{}, {"tile": (16, 16)}, {"rowsperstrip": 7}, {"compression": "zlib"}]),
    order=st.sampled_from("<>"),
)
def test_unsigned_values_of_any_depth_come_back(
    tmp_path_factory: pytest.TempPathFactory, bits: int, form: str, layout: dict[str, Any], order: str
) -> None:
    """Independent truth: the array that was written."""
    packed = bits not in (8, 16)
    if packed:
        layout, order = {}, "<"  # the writer packs bits in plain strips alone
    top = 2**bits - 1
    grey = np.rint(RAMP * top).astype(np.uint8 if bits == 8 else np.uint16)
    colours = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    options: dict[str, Any] = {"byteorder": order, **({"bitspersample": bits} if packed else {}), **layout}
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    if form == "rgb":
        tifffile.imwrite(path, colours, photometric="rgb", **options)
    elif form == "planes":
        planes = np.ascontiguousarray(np.moveaxis(colours, 2, 0))
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", **options)
    else:
        tifffile.imwrite(path, grey, photometric="miniswhite" if form == "white is zero" else "minisblack", **options)
    expected = shown(colours if form in ("rgb", "planes") else grey, 0, top)
    expected = 255 - expected if form == "white is zero" else expected
    assert np.abs(read_picture(path).pixels - expected).max() <= (1 if form == "white is zero" else 0)


def test_signed_values_are_shown_by_their_range_and_floats_need_one(tmp_path: Path) -> None:
    values = np.rint(RAMP * 65535 - 32768).astype(np.int16)
    tifffile.imwrite(tmp_path / "signed.tif", values)
    assert np.array_equal(read_picture(tmp_path / "signed.tif").pixels, shown(values, -32768, 32767))
    tifffile.imwrite(tmp_path / "byte.tif", (values >> 8).astype(np.int8))
    assert np.array_equal(read_picture(tmp_path / "byte.tif").pixels, shown(values >> 8, -128, 127))
    tifffile.imwrite(tmp_path / "float.tif", RAMP.astype(np.float32))
    with pytest.raises(DownloadError, match="--intensity percentiles"):
        read_picture(tmp_path / "float.tif")
    picture = read_picture(tmp_path / "float.tif", intensity=Intensity("window", 0, 1))
    assert np.array_equal(picture.pixels, shown(RAMP.astype(np.float32), 0, 1))


@pytest.mark.parametrize("writer", ["plain", "imagej", "ome", "tiled"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_stack_is_all_its_pages(tmp_path: Path, writer: str, dtype: type) -> None:
    top = np.iinfo(dtype).max
    stack: np.ndarray = np.stack([np.roll(RAMP, 5 * page) * top for page in range(4)]).astype(dtype)
    by_writer: dict[str, dict[str, Any]] = {
        "plain": {"metadata": None},
        "imagej": {"imagej": True},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
        "tiled": {"tile": (16, 16), "compression": "zlib"},
    }
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", **by_writer[writer])
    assert frame_count(path) == 4
    for page in range(4):
        pixels = read_picture(path, frame=page).pixels
        assert np.array_equal(pixels, shown(stack[page], 0, top))
    assert read_picture(path).warnings[0] == "first of several pages taken (4)"
    with pytest.raises(DownloadError, match="page 4 asked for, the file holds 4"):
        read_picture(path, frame=4)


def test_levels_of_a_pyramid_and_previews_are_no_pages(tmp_path: Path) -> None:
    full = np.rint(RAMP * 65535).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(full, subifds=1, photometric="minisblack")
        file.write(full[::2, ::2].copy(), subfiletype=1)
        file.write(full[::4, ::4].copy(), subfiletype=1)
    assert frame_count(tmp_path / "a.tif") == 1
    picture = read_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, shown(full, 0, 65535))
    assert picture.warnings == ()


def test_pages_of_another_size_are_noted(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.rint(RAMP * 255).astype(np.uint8), photometric="minisblack", metadata=None)
        file.write(np.zeros((9, 8), np.uint8), photometric="minisblack", metadata=None)
    assert read_picture(tmp_path / "a.tif").warnings == ("pages of another size or type left out (1)",)


def test_pages_without_directories_are_noted(tmp_path: Path) -> None:
    stack = np.zeros((3, 40, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", truncate=True)
    notes = read_picture(tmp_path / "a.tif").warnings
    assert notes[0] == "pages of a stack without directories of their own left out (2)"


def test_channels_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    channels = np.zeros((40, 30, 5), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", channels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(DownloadError, match=r"a\.tif: 5 channel\(s\) of 16 bits"):
        read_picture(tmp_path / "a.tif")


def test_a_damaged_directory_or_page_is_refused_in_one_line(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.rint(RAMP * 65535).astype(np.uint16), compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    for kept in (5, 12, 200, len(content) - 300):
        (tmp_path / "cut.tif").write_bytes(content[:kept])
        with pytest.raises(DownloadError, match=r"^cut\.tif: ") as caught:
            read_picture(tmp_path / "cut.tif")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    values = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif.tobytes())
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(turned(values, orientation), upright)
    tifffile.imwrite(tmp_path / "a.tif", values.astype(np.uint16) * 257, extratags=[(274, "H", 1, orientation, True)])
    tifffile.imwrite(tmp_path / "b.tif", values, extratags=[(274, "H", 1, orientation, True)])
    for name in ("a.png", "a.tif", "b.tif"):
        picture = read_picture(tmp_path / name)
        assert np.array_equal(picture.pixels, upright), name
        assert picture.orientation == orientation
        assert bool(picture.warnings) == (orientation != 1)


def test_deep_png_of_several_channels_keeps_all_bits(tmp_path: Path) -> None:
    """Pillow would keep the upper eight bits: a picture of 12 used bits would have 16 levels and no note."""
    import imagecodecs

    grey = np.rint(RAMP * 4095).astype(np.uint16)
    colours = np.stack([grey, grey[::-1], grey], axis=-1)
    opaque = np.full((*grey.shape, 1), 65535, np.uint16)
    for name, values in {
        "rgb": colours,
        "rgba": np.concatenate([colours, opaque], axis=2),
        "grey": grey,
        "la": np.concatenate([grey[..., None], opaque], axis=2),
    }.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(imagecodecs.png_encode(values))
        picture = read_picture(path, intensity=Intensity(low=0, high=4095))
        expected = shown(colours if name.startswith("rgb") else grey, 0, 4095)
        assert np.array_equal(picture.pixels, expected), name
        assert "few of its bits" in read_picture(path).warnings[0]
