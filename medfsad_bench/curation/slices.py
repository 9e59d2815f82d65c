"""From volumes to slices: which slices of a patient take part, and which of them hold tumour."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import Finding, RawImage
from medfsad_bench.manifest import SliceRule
from medfsad_bench.readers import Intensity, read_masks, read_picture, read_volume, read_volume_masks

_DARK = 20  # of 255: above the noise of the air around the head in 8-bit slices

_Slice = tuple[RawImage, int, int, int]  # number in the stack from the bottom up; pixels of brain and of tumour


@dataclass(slots=True)
class Slices:
    """The slices of a set that take part, and what was found on the way."""

    images: list[RawImage] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)  # why a volume or slice can't be read, by its id
    findings: list[Finding] = field(default_factory=list)


def expand_slices(
    images: Sequence[RawImage], rule: SliceRule, *, one_to_one: bool = False, on_done: Callable[[int], None]
) -> Slices:
    """Slices that take part, labelled `normal` or `tumour`, stack by stack and sorted by id.

    A volume or slice that can't be read is a problem of its own, and the rest goes on.

    Args:
        images: Label `volume` (NIfTI) or `slice` (one raster file per slice); others are left out.
        rule: The manifest's.
        one_to_one: Whether a mask of its volume's shape is taken voxel by voxel, whatever its affine says.
        on_done: Called with the number of stacks finished since the last call.
    """
    slices = Slices()
    for stack in stacks(images):
        measured: list[_Slice] = []
        for image in stack:
            try:
                if image.label == "volume":
                    measured += _slices_of_volume(image, rule.step, slices, one_to_one=one_to_one)
                elif image.label == "slice":
                    measured.append(_slice(image))
            except DownloadError as error:
                slices.problems[image.id] = str(error)
            except OSError as error:
                slices.problems[image.id] = f"{image.path.name}: can't be read ({error})"
        slices.images += sorted(_chosen(measured, rule), key=lambda image: image.id)
        on_done(1)
    return slices


def stacks(images: Sequence[RawImage]) -> list[list[RawImage]]:
    """Images by stack: a patient may have several volumes, but slices in files are one stack."""
    by_name: dict[str, list[RawImage]] = defaultdict(list)
    for image in images:
        by_name[image.patient if image.label == "slice" else image.id].append(image)
    return [stack for _, stack in sorted(by_name.items())]


def _slices_of_volume(image: RawImage, step: int, slices: Slices, *, one_to_one: bool) -> list[_Slice]:
    volume = read_volume(image.path)
    tumour = np.zeros(volume.array.shape, bool)
    if image.masks:
        mask = read_volume_masks(image.masks, volume, one_to_one=one_to_one)
        tumour = mask.voxels
        if mask.contradiction:
            slices.findings.append(Finding("mask-grid", image.id, mask.contradiction, stops=True))
    return [
        (
            replace(image, id=f"{image.id}_{index:03d}", slice_index=index, frame=0),
            index,
            int((volume.array[:, :, index] > 0).sum()),
            int(tumour[:, :, index].sum()),
        )
        for index in range(0, volume.array.shape[2], step)
    ]


def _slice(image: RawImage) -> _Slice:
    pixels = np.atleast_3d(read_picture(image.path, intensity=Intensity()).pixels)
    tumour = int(read_masks(image.masks).pixels.sum()) if image.masks else 0
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
