"""From volumes to slices: which slices of a patient take part, and which of them hold tumour."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfsad_bench.layouts import RawImage
from medfsad_bench.manifest import SliceRule
from medfsad_bench.readers import Intensity, read_mask, read_picture, read_volume, read_volume_mask

_DARK = 20  # of 255: above the noise of the air around the head in 8-bit slices


@dataclass(frozen=True, slots=True)
class _Slice:
    image: RawImage
    number: int  # in the stack, from the bottom up
    brain_area: float  # pixels
    tumour_area: int  # pixels


def expand_slices(images: Sequence[RawImage], rule: SliceRule) -> list[RawImage]:
    """Replace volumes (or unlabelled slices) by the slices that take part, labelled `normal` or `tumour`.

    Args:
        images: Of one patient or many; label `volume` (NIfTI) or `slice` (one raster file per slice).
        rule: The manifest's.

    Raises:
        DownloadError: If a file can't be read.
    """
    by_patient: dict[str, list[_Slice]] = defaultdict(list)
    for image in images:
        if image.label not in ("volume", "slice"):
            continue
        by_patient[image.patient].extend(_volume(image, rule.step) if image.label == "volume" else _slice(image))
    chosen = (image for patient in sorted(by_patient) for image in _apply(rule, by_patient[patient]))
    return sorted(chosen, key=lambda image: image.id)


def _apply(rule: SliceRule, slices: list[_Slice]) -> Iterable[RawImage]:
    largest = max(item.brain_area for item in slices)
    lowest, highest = (end(item.number for item in slices) for end in (min, max))
    for item in slices:
        height = (item.number - lowest) / max(1, highest - lowest)
        if largest == 0 or item.brain_area < rule.min_area * largest:
            continue
        if not rule.heights[0] <= height <= rule.heights[1] or 0 < item.tumour_area < rule.min_tumour_voxels:
            continue
        label = "tumour" if item.tumour_area else "normal"
        yield replace(item.image, label=label, disease=label)


def _volume(image: RawImage, step: int) -> list[_Slice]:
    volume = read_volume(image.path)
    tumour = read_volume_mask(image.mask, volume) if image.mask else np.zeros(volume.array.shape, bool)
    return [
        _Slice(
            replace(image, id=f"{image.id}_{index:03d}", slice_index=index, frame=0),
            index,
            float((volume.array[:, :, index] > 0).sum()),
            int(tumour[:, :, index].sum()),
        )
        for index in range(0, volume.array.shape[2], step)
    ]


def _slice(image: RawImage) -> list[_Slice]:
    pixels = np.atleast_3d(read_picture(image.path, intensity=Intensity()).pixels)
    tumour = int(read_mask(image.mask).sum()) if image.mask else 0
    number = int(re.split(r"\D+", image.path.stem)[-1])
    return [_Slice(image, number, float((pixels.mean(axis=2) > _DARK).sum()), tumour)]
