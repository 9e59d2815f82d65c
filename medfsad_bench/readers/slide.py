"""Patches of whole slides, through the extra `[wsi]` (tiffslide)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from medfsad_bench.errors import DownloadError, MedfsadError
from medfsad_bench.readers.picture import Picture, decoding, grey_if_equal

_40X_UM = (0.15, 0.35)  # micrometres per pixel that pass for 40x


def read_patches(path: Path, regions: Iterable[tuple[int, int, int]]) -> Iterator[Picture]:
    """Patches of level 0 as RGB, in the order of `regions` (left, top, edge in pixels).

    Raises:
        MedfsadError: If the extra `[wsi]` isn't installed.
        DownloadError: If the slide can't be read, isn't at 40x, or a patch lies outside.
    """
    try:
        from tiffslide import TiffSlide
    except ImportError as error:
        raise MedfsadError(
            "Whole slides need tiffslide, which isn't installed. Run `pip install 'medfsad[wsi]'` and the same command "
            "again."
        ) from error
    with decoding(path.name, "no whole slide that can be read"), TiffSlide(path) as slide:
        spacing_mm = _spacing(path, slide.properties)
        width, height = slide.dimensions
        for left, top, edge in regions:
            if left < 0 or top < 0 or left + edge > width or top + edge > height:
                raise DownloadError(
                    f"{path.name}: the patch at {left}, {top} lies outside of {width} × {height} px. Expected a slide "
                    "at 40x; download it again."
                )
            pixels = np.asarray(slide.read_region((left, top), 0, (edge, edge)).convert("RGB"))
            yield Picture(grey_if_equal(pixels), spacing_mm=spacing_mm)


def polygon_mask(
    polygons: Sequence[Sequence[tuple[float, float]]],
    holes: Sequence[Sequence[tuple[float, float]]],
    region: tuple[int, int, int],
) -> Bool[np.ndarray, "edge edge"]:
    """What of a patch lies in a polygon and in no hole."""
    left, top, edge = region
    mask = Image.new("1", (edge, edge))
    draw = ImageDraw.Draw(mask)
    for corners, value in [(c, 1) for c in polygons] + [(c, 0) for c in holes]:
        draw.polygon([(x - left, y - top) for x, y in corners], fill=value)
    return np.asarray(mask, bool)


def _spacing(path: Path, properties: object) -> tuple[float, float] | None:
    values = [properties.get(f"tiffslide.mpp-{axis}") for axis in "yx"]  # type: ignore[attr-defined]
    if any(value is None for value in values):
        return None
    y, x = (float(value) for value in values)
    if not _40X_UM[0] <= x <= _40X_UM[1]:
        raise DownloadError(
            f"{path.name}: {x:.2f} µm per pixel. Expected 0.23 to 0.25 (40x); download the original slide."
        )
    return y / 1000, x / 1000
