"""Rasters as a person sees them, whatever their mode; what can't be shown is refused in one line."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import Intensity, read_mask, read_picture, resize_square

RGB = np.zeros((4, 6, 3), np.uint8)
RGB[:, :3] = (200, 40, 10)
RGB[:2, 3:] = (0, 0, 255)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        picture = read_picture(save(tmp_path / name, Image.fromarray(deep)))
        assert picture.pixels.tolist() == [[0, 1, 128, 255]]
    windowed = read_picture(tmp_path / "a.png", intensity=Intensity("window", 257, 32896))
    assert windowed.pixels.tolist() == [[0, 0, 255, 255]]


def test_big_endian_tiff_of_sixteen_bits_is_the_same(tmp_path: Path) -> None:
    header = b"MM\0*\0\0\0\x08\0\x08"
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 110), (278, 3, 1), (279, 4, 4)]
    entries = b"".join(
        tag.to_bytes(2, "big")
        + kind.to_bytes(2, "big")
        + b"\0\0\0\x01"
        + (value.to_bytes(4, "big") if kind == 4 else value.to_bytes(2, "big") + b"\0\0")
        for tag, kind, value in tags
    )
    path = tmp_path / "a.tif"
    path.write_bytes(header + entries + b"\0\0\0\0" + (65535).to_bytes(2, "big") + (257).to_bytes(2, "big"))
    assert read_picture(path).pixels.tolist() == [[255, 1]]


def test_palette_is_shown_in_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(4)
    assert np.abs(read_picture(save(tmp_path / "a.png", image)).pixels.astype(int) - RGB).max() <= 4


def test_grey_in_three_channels_becomes_one(tmp_path: Path) -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    path = save(tmp_path / "a.png", Image.fromarray(np.repeat(grey[..., None], 3, axis=2)))
    assert np.array_equal(read_picture(path).pixels, grey)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_flattened_onto_black(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (100, 100, 100, 255))
    image.putpixel((1, 0), (100, 100, 100, 0))
    source = image.convert("P") if mode == "PA" else image.convert(mode)
    options = {"transparency": source.getpixel((1, 0))} if mode == "PA" else {}
    if mode == "PA":  # one palette entry for both pixels: all transparent
        pytest.skip("Pillow can't write two alphas in a palette") if options["transparency"] == source.getpixel(
            (0, 0)
        ) else None
    picture = read_picture(save(tmp_path / "a.png", source, **options))
    assert picture.pixels[0].max() == 100
    assert picture.pixels[0, 1] == 0
    assert picture.warnings == ("alpha flattened onto black",)


def test_cmyk_jpeg_is_shown_in_rgb(tmp_path: Path) -> None:
    large = np.repeat(np.repeat(RGB, 16, axis=0), 16, axis=1)
    path = save(tmp_path / "a.jpg", Image.fromarray(large).convert("CMYK"), quality=95)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    assert np.abs(read_picture(path).pixels.astype(int) - large)[4:28, 4:40].max() <= 8


@pytest.mark.parametrize(("orientation", "turned"), [(3, 2), (6, -1), (8, 1)])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, turned: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(RGB), exif=exif.tobytes())
    assert np.array_equal(read_picture(path).pixels, np.rot90(RGB, turned))


def test_the_first_page_or_frame_is_taken_and_said(tmp_path: Path) -> None:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    for name in ("a.tif", "a.gif", "a.webp", "a.png"):
        path = save(tmp_path / name, first, save_all=True, append_images=[second], lossless=True)
        picture = read_picture(path)
        assert np.abs(picture.pixels.astype(int) - RGB).max() <= 2, name
        assert "first of several" in picture.warnings[0], name


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.97])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, form: str, kept: float) -> None:
    buffer = BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(buffer, form)
    path = tmp_path / "a.img"
    path.write_bytes(buffer.getvalue()[: kept if isinstance(kept, int) else int(len(buffer.getvalue()) * kept)])
    if form in ("WEBP", "GIF") and kept == 0.97:
        pytest.skip("the last bytes hold no pixels")
    with pytest.raises(DownloadError, match=r"^a\.img: ") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.new("L", (64, 64)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(content))
    with pytest.raises(DownloadError, match=r"50000 × 50000 px|exceeds limit"):
        read_picture(tmp_path / "a.png")


def test_floating_point_needs_a_range(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)))
    with pytest.raises(DownloadError, match="no display range"):
        read_picture(path)
    assert read_picture(path, intensity=Intensity("window", 0, 1)).pixels.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_mask_is_whatever_is_not_zero(tmp_path: Path, mode: str) -> None:
    truth = np.zeros((5, 4), bool)
    truth[1:3, 2] = True
    image = Image.fromarray(truth.astype(np.uint16)) if mode == "I;16" else Image.fromarray(truth).convert(mode)
    assert np.array_equal(read_mask(save(tmp_path / "a.png", image)).pixels, truth)


def test_resizing_is_anti_aliased_from_the_original_in_one_step(tmp_path: Path) -> None:
    """A checkerboard finer than the result's pixels becomes even grey, not a moiré."""
    board = (np.indices((256, 384)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize_square(board, 32)
    assert small.shape == (32, 32)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 128).max() <= 2
