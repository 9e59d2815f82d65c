"""From volumes to slices: which slices of a patient take part, and which of them hold tumour."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from medfsad_bench.layouts import RawImage
from medfsad_bench.manifest import SliceRule
from medfsad_bench.readers import Intensity, read_mask, read_picture, read_volume, read_volume_mask

_DARK = 20  # of 255: above the noise of the air around the head in 8-bit slices

_Slice = tuple[RawImage, int, int, int]  # number in the stack from the bottom up; pixels of brain and of tumour


def expand_slices(images: Sequence[RawImage], rule: SliceRule) -> list[RawImage]:
    """Slices of one patient that take part, labelled `normal` or `tumour`, sorted by id.

    Args:
        images: The patient's; label `volume` (NIfTI) or `slice` (one raster file per slice), others are left out.
        rule: The manifest's.

    Raises:
        DownloadError: If a file can't be read.
    """
    slices: list[_Slice] = []
    for image in images:
        if image.label == "volume":
            slices += _slices_of_volume(image, rule.step)
        elif image.label == "slice":
            slices.append(_slice(image))
    return sorted(_chosen(slices, rule), key=lambda image: image.id)


def _slices_of_volume(image: RawImage, step: int) -> Iterator[_Slice]:
    volume = read_volume(image.path)
    masks = [read_volume_mask(path, volume) for path in image.masks]
    tumour = np.logical_or.reduce(masks) if masks else np.zeros(volume.array.shape, bool)
    for index in range(0, volume.array.shape[2], step):
        of_slice = replace(image, id=f"{image.id}_{index:03d}", slice_index=index, frame=0)
        yield of_slice, index, int((volume.array[:, :, index] > 0).sum()), int(tumour[:, :, index].sum())


def _slice(image: RawImage) -> _Slice:
    pixels = np.atleast_3d(read_picture(image.path, intensity=Intensity()).pixels)
    tumour = int(np.logical_or.reduce([read_mask(path) for path in image.masks]).sum()) if image.masks else 0
    number = int(re.split(r"\D+", image.path.stem)[-1])
    return image, number, int((pixels.mean(axis=2) > _DARK).sum()), tumour


def _chosen(slices: Sequence[_Slice], rule: SliceRule) -> Iterator[RawImage]:
    largest = max((brain for _, _, brain, _ in slices), default=0)
    if largest == 0:
        return
    lowest, highest = (end(number for _, number, _, _ in slices) for end in (min, max))
    for image, number, brain, tumour in slices:
        height = (number - lowest) / max(1, highest - lowest)
        in_range = rule.heights[0] <= height <= rule.heights[1] and brain >= rule.min_area * largest
        if in_range and not 0 < tumour < rule.min_tumour_voxels:
            label = "tumour" if tumour else "normal"
            yield replace(image, label=label, disease=label)
