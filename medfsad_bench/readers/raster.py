"""PNG, JPEG, TIFF and the like, through Pillow."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps, UnidentifiedImageError

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import (
    Intensity,
    Picture,
    check_size,
    decoding,
    grey_if_equal,
    stated_range,
    to_8_bits,
)

_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")


def read_raster(path: Path, *, intensity: Intensity) -> Picture:
    """Read an image file as a person sees it: EXIF rotation applied, palette, CMYK and alpha flattened.

    Raises:
        DownloadError: If it's no image, damaged, or above `MAX_PIXELS`.
    """
    image, notes = _open(path)
    if image.mode in _DEEP:
        return _deep(path, image, notes, intensity)
    if image.mode == "1":
        image = image.convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            notes.append("alpha flattened onto black")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    if image.mode != "L":
        image = image.convert("RGB")
    pixels = np.asarray(image)
    pixels = pixels if pixels.ndim == 2 else grey_if_equal(pixels)
    if intensity.mapping == "display":
        return Picture(pixels, warnings=tuple(notes))
    values = pixels.astype(np.float64)
    low, high = stated_range(path.name, values, intensity)
    window = f"{intensity.mapping} {low:g}/{high:g}"
    return Picture(to_8_bits(values, low, high), window=window, warnings=tuple(notes))


def read_mask(path: Path, *, frame: int = 0) -> Bool[np.ndarray, "h w"]:
    """Read a mask, or one frame or page of it: any value but zero is anomalous.

    Raises:
        DownloadError: If it's no image.
    """
    from medfsad_bench.readers.sniff import is_dicom

    if is_dicom(path):
        from medfsad_bench.readers.dicom import read_dicom

        shown = np.atleast_3d(read_dicom(path, intensity=Intensity(), frame=frame).pixels)
        return np.asarray(shown.any(axis=2), bool)
    image, _ = _open(path, frame)
    values = np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK") else image)
    return np.asarray(values != 0 if values.ndim == 2 else values[..., :3].any(axis=2), bool)


def _open(path: Path, page: int = 0) -> tuple[Image.Image, list[str]]:
    notes: list[str] = []
    with decoding(path.name, "the image is damaged or cut short"):
        try:
            with Image.open(path) as image:
                check_size(path.name, image.width, image.height)
                if getattr(image, "is_animated", False):  # counting all of them could take for ever
                    notes.append("first of several pages or frames taken")
                image.seek(page)
                image.load()
                upright = ImageOps.exif_transpose(image)
                if upright.size != image.size:
                    notes.append("rotated as EXIF says")
                return upright.copy(), notes
        except UnidentifiedImageError as error:
            raise DownloadError(
                f"{path.name}: no DICOM file and no image that Pillow knows. Expected DICOM, PNG, JPEG or TIFF; remove "
                "or convert it."
            ) from error
        except FileNotFoundError as error:
            raise DownloadError(
                f"{path.name}: the file is missing from {path.parent.name}/. Complete the download."
            ) from error
        except Image.DecompressionBombError as error:
            raise DownloadError(f"{path.name}: {error} Expected an ordinary image; remove it.") from error


def _deep(path: Path, image: Image.Image, notes: list[str], intensity: Intensity) -> Picture:
    values = np.asarray(image)
    if intensity.mapping != "display":
        low, high = stated_range(path.name, values.astype(np.float64), intensity)
    elif image.mode != "F":
        low, high = 0.0, 65535.0
    else:
        raise DownloadError(
            f"{path.name}: floating-point pixels have no display range. Expected 8 or 16 bits, or a manifest with "
            "mapping = 'window' or 'percentiles'."
        )
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # once per value, not once per pixel
        pixels = to_8_bits(np.arange(2**16, dtype=np.float64), low, high)[values]
    else:
        pixels = to_8_bits(values.astype(np.float64), low, high)
    window = f"{intensity.mapping} {low:g}/{high:g}"
    return Picture(pixels, window=window, warnings=(*notes, f"{image.mode} scaled to 8 bits"))
