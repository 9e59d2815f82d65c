"""PNG, JPEG, TIFF and the like, through Pillow; what Pillow reads wrongly through tifffile and imagecodecs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.mask_values import StoredMask
from medfsad_bench.readers.picture import (
    Intensity,
    Picture,
    Pixels,
    check_size,
    decoding,
    full_range,
    grey_if_equal,
    says_little,
    stated_range,
    to_8_bits,
    turned,
    unused_bits_note,
)
from medfsad_bench.readers.tiff import TiffLook, is_tiff, look_at, read_deep_page

_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_OR_ALPHA = (2, 4, 6)
_EXIF_ORIENTATION = 0x0112

TURNED = "turned upright as EXIF says"
PALETTE_BY_INDEX = "palette of a mask read by its indices; its colours say otherwise"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A raster as its decoder gives it, upright."""

    image: Image.Image | None
    values: np.ndarray | None  # where a channel has more than 8 bits: (h, w), or (h, w, 3)
    range_: tuple[float, float] | None  # that the bits of the values allow; None for floating point
    frames: int
    orientation: int
    lossy: bool
    notes: tuple[str, ...]


def read_raster(path: Path, *, intensity: Intensity, frame: int | None = None) -> Picture:
    """Read an image file as a person sees it: EXIF rotation applied, palette, CMYK and alpha flattened.

    Args:
        path: The file.
        intensity: How values become 8 bits.
        frame: Page of a TIFF stack; without it the first, which is noted where there are several.

    Raises:
        DownloadError: If it's no image, damaged, or above `MAX_PIXELS`.
    """
    opened = _open(path, frame)
    if opened.values is not None or opened.image is None:
        pixels, window, notes = _of_deep(path.name, np.asarray(opened.values), opened.range_, intensity)
    else:
        pixels, notes = _flattened(opened.image)
        window = ""
        if intensity.mapping != "display":
            values = pixels.astype(np.float64)
            low, high, more = stated_range(path.name, values, intensity)
            pixels, window = to_8_bits(values, low, high), f"{intensity.mapping} {low:g}/{high:g}"
            notes += more
    return Picture(
        pixels,
        window=window,
        warnings=(*opened.notes, *notes),
        frames=opened.frames,
        orientation=opened.orientation,
    )


def raster_extremes(path: Path) -> tuple[float, float] | None:
    """The least and the greatest value of a PNG or TIFF file whose words may have unused bits; None of any other.

    Raises:
        DownloadError: As `read_raster`.
    """
    if not (_png_form(path)[0] == 16 or (is_tiff(path) and not look_at(path).plain)):
        return None
    lows, highs, page, frames = [], [], 0, 1
    while page < frames:
        opened = _open(path, page)
        if opened.values is None or opened.range_ is None or not says_little(opened.range_):
            return None
        lows.append(float(opened.values.min()))
        highs.append(float(opened.values.max()))
        page, frames = page + 1, opened.frames
    return min(lows), max(highs)


def stored_raster_mask(path: Path, *, frame: int) -> StoredMask:
    """The values of a mask: palettes by index, alpha left aside.

    Raises:
        DownloadError: As `read_raster`, or if nothing but the transparency differs between pixels.
    """
    opened = _open(path, frame)
    notes = tuple(note for note in opened.notes if note.startswith(TURNED))
    if opened.values is not None or opened.image is None:
        values = np.asarray(opened.values)
        return StoredMask(values, values.ndim == 3, opened.lossy, notes=notes)
    image = opened.image
    if image.mode in ("P", "PA"):
        values = np.asarray(image)
        values = values if values.ndim == 2 else values[..., 0]
        return StoredMask(values, notes=(*notes, *_palette_notes(image, values)))
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        values, opacity = values[..., :-1], values[..., -1]
        if opacity.min() != opacity.max() and (values == values[0, 0]).all():
            raise DownloadError(
                f"{path.name}: all pixels of the mask have one colour, and only their transparency differs. Expected "
                "the lesion in another colour than the background; flatten the mask onto black."
            )
        values = values[..., 0] if values.shape[-1] == 1 else values
    return StoredMask(values, values.ndim == 3, opened.lossy, notes=notes)


def _open(path: Path, frame: int | None) -> _Opened:
    try:
        look = look_at(path) if is_tiff(path) else None
    except FileNotFoundError as error:
        raise _missing(path) from error
    frames, notes = (look.frames, look.notes) if look else (1, ())
    if frame is not None and not 0 <= frame < frames:
        raise DownloadError(f"{path.name}: page {frame} asked for, the file holds {frames}. Choose one of these.")
    if frames > 1 and frame is None:
        notes += (f"first of several pages taken ({frames})",)
    if look is not None and not look.plain:
        page = read_deep_page(path, frame or 0)
        notes += _turned_notes(look.orientation)
        return _Opened(None, turned(page.values, look.orientation), page.range_, frames, look.orientation, False, notes)
    opened = _by_pillow(path, look, frame or 0)
    return replace(opened, frames=frames, notes=notes + opened.notes)


def _by_pillow(path: Path, look: TiffLook | None, frame: int) -> _Opened:
    notes: tuple[str, ...] = ()
    with decoding(path.name, "the image is damaged or cut short"):
        try:
            with Image.open(path) as image:
                check_size(path.name, image.width, image.height)
                if look is not None:
                    image.seek(look.pages[frame])
                elif getattr(image, "is_animated", False):  # counting all of them could take for ever
                    notes += ("first of several frames taken",)
                image.load()
                orientation = look.orientation if look else int(image.getexif().get(_EXIF_ORIENTATION, 1))
                upright = ImageOps.exif_transpose(image).copy()
                lossy = look.lossy if look else image.format in _LOSSY
        except UnidentifiedImageError as error:
            raise DownloadError(
                f"{path.name}: no DICOM file and no image that Pillow knows. Expected DICOM, PNG, JPEG or TIFF; remove "
                "or convert it."
            ) from error
        except FileNotFoundError as error:
            raise _missing(path) from error
        except Image.DecompressionBombError as error:
            raise DownloadError(f"{path.name}: {error} Expected an ordinary image; remove it.") from error
        # Of 16 bits in several channels Pillow keeps the upper eight alone.
        deep = _png_form(path) in ((16, kind) for kind in _PNG_COLOUR_OR_ALPHA)
        values = turned(_deep_png(path), orientation) if deep else None
    if values is None and upright.mode in _DEEP:
        values = np.asarray(upright)
    range_ = None if upright.mode == "F" else full_range(16, signed=False)
    return _Opened(upright, values, range_, 1, orientation, lossy, notes + _turned_notes(orientation))


def _png_form(path: Path) -> tuple[int, int]:
    """Bit depth and colour type of a PNG file (PNG 11.2.1); zeros of any other."""
    with path.open("rb") as file:
        head = file.read(26)
    return (head[24], head[25]) if head.startswith(_PNG_MAGIC) and len(head) == 26 else (0, 0)


def _deep_png(path: Path) -> np.ndarray:
    """Grey or RGB of 16 bits, alpha flattened onto black."""
    import imagecodecs

    values = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if values.shape[2] in (2, 4):
        opacity = values[..., -1:] / 65535
        values = np.rint(values[..., :-1] * opacity).astype(np.uint16)
    return values[..., 0] if values.shape[2] == 1 else values


def _flattened(image: Image.Image) -> tuple[Pixels, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if image.mode == "1":
        image = image.convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            notes = ("alpha flattened onto black",)
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    if image.mode != "L":
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return (pixels if pixels.ndim == 2 else grey_if_equal(pixels)), notes


def _of_deep(
    name: str, values: np.ndarray, range_: tuple[float, float] | None, intensity: Intensity
) -> tuple[Pixels, str, tuple[str, ...]]:
    """Pixels, the window that made them, and notes."""
    notes: tuple[str, ...] = ()
    if intensity.mapping != "display":
        low, high, notes = stated_range(name, values.astype(np.float64), intensity)
    elif range_ is None:
        raise DownloadError(
            f"{name}: floating-point pixels have no display range. Expected integers, or --intensity percentiles for a "
            "folder of your own, or a manifest with mapping = 'window' or 'percentiles'."
        )
    elif intensity.low is not None and intensity.high is not None and says_little(range_):
        low, high = intensity.low, intensity.high
    else:
        low, high = range_
        notes = unused_bits_note(values, range_) if says_little(range_) else ()
    if values.dtype == np.uint16:  # once per value, not once per pixel
        pixels = to_8_bits(np.arange(2**16, dtype=np.float64), low, high)[values]
    else:
        pixels = to_8_bits(values.astype(np.float64), low, high)
    pixels = pixels if pixels.ndim == 2 else grey_if_equal(pixels)
    return pixels, f"{intensity.mapping} {low:g}/{high:g}", notes


def _turned_notes(orientation: int) -> tuple[str, ...]:
    return (f"{TURNED} (orientation {orientation})",) if orientation != 1 else ()


def _palette_notes(image: Image.Image, indices: np.ndarray) -> tuple[str, ...]:
    """Two readings are possible where the colours make another pixel black than the indices make 0."""
    black = (np.asarray(image.convert("RGB")) == 0).all(axis=-1)
    return () if np.array_equal(black, indices == 0) else (PALETTE_BY_INDEX,)


def _missing(path: Path) -> DownloadError:
    return DownloadError(f"{path.name}: the file is missing from {path.parent.name}/. Put it there.")
