"""Masks as files hold them: which pixels are anomalous, and what was decided on the way.

file → stored values, as the file's tags mean them → anomalous or not, by the rules of `mask_values` → united
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.mask_values import StoredMask, anomalous
from medfsad_bench.readers.sniff import frame_count, is_dicom


@dataclass(frozen=True, slots=True)
class Mask:
    """Which pixels of an image are anomalous."""

    pixels: Bool[np.ndarray, "h w"]
    warnings: tuple[str, ...] = ()  # readings that were chosen, each to be looked at


def read_masks(paths: Sequence[Path], *, frame: int = 0, frames: int = 1) -> Mask:
    """Read the masks of one image, united.

    Args:
        paths: One file or several.
        frame: Of the image in its file, from 0.
        frames: How many the image's file holds; the mask's file must hold as many.

    Raises:
        DownloadError: As `read_mask`, or if the masks differ in size.
    """
    masks = [read_mask(path, frame=frame, frames=frames) for path in paths]
    shapes = [mask.pixels.shape for mask in masks]
    for path, shape in zip(paths, shapes, strict=True):
        if shape != shapes[0]:
            raise DownloadError(
                f"{path.name}: the mask is {shape[1]} × {shape[0]} px, {paths[0].name} of the same image "
                f"{shapes[0][1]} × {shapes[0][0]}. Expected masks of one size; mend or remove one."
            )
    warnings = dict.fromkeys(note for mask in masks for note in mask.warnings)
    return Mask(np.logical_or.reduce([mask.pixels for mask in masks]), tuple(warnings))


def read_mask(path: Path, *, frame: int = 0, frames: int = 1) -> Mask:
    """Read one mask: a raster, one page of a TIFF stack, or one frame of a DICOM file.

    Palettes count by index, alpha is left aside, and black is the background, the way round that the file's tags say
    (WhiteIsZero, MONOCHROME1). What the values mean is decided by `medfsad_bench.readers.mask_values.anomalous`.

    Raises:
        DownloadError: If it's damaged, holds another number of frames than its image, or values that no rule covers.
    """
    stored = _stored(path, frame, frames)
    pixels, notes = anomalous(path.name, stored)
    return Mask(pixels, (*stored.notes, *notes))


def _stored(path: Path, frame: int, frames: int) -> StoredMask:
    if path.name.lower().endswith((".nii", ".nii.gz")):
        raise DownloadError(
            f"{path.name}: a NIfTI mask of an image that is none: its axes don't say which way up the image lies. "
            "Expected a mask of the image's own kind, or PNG or TIFF; convert it."
        )
    if (count := frame_count(path)) != frames:
        raise DownloadError(
            f"{path.name}: the mask holds {_frames(count)}, its image {_frames(frames)}. Expected one mask for each "
            "frame; write them as a stack of as many pages, or frames as files of their own."
        )
    if is_dicom(path):
        from medfsad_bench.readers.dicom_mask import stored_dicom_mask

        return stored_dicom_mask(path, frame=frame)
    from medfsad_bench.readers.raster import stored_raster_mask

    return stored_raster_mask(path, frame=frame)


def _frames(count: int) -> str:
    return f"{count} frames" if count > 1 else "one frame"
