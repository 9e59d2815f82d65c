"""What every exact pixel metric is made of: where the anomalous pixels rank among the normal ones.

    1 split      normal pixels of all images are joined; anomalous ones keep their region
    2 count      the normals are sorted in runs; per anomalous pixel: how many lie above it, and at or above it

A metric then costs a pass over the anomalous pixels, which are few. Scores that only normal pixels have are never
needed as thresholds: there every metric can but fall.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, Integer, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.inputs import as_labels, as_scores

Maps = Real[np.ndarray, "_ _ _"] | Sequence[Real[np.ndarray, "_ _"]]
_Stack = Bool[np.ndarray, "_ _ _"] | Integer[np.ndarray, "_ _ _"]
Masks = _Stack | Sequence[Bool[np.ndarray, "_ _"] | Integer[np.ndarray, "_ _"]]

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
_RUN = 2**20  # values sorted at a time: measured fastest of 2¹⁷…2²² on 13 million pixels


@dataclass(frozen=True, slots=True)
class PixelRanks:
    """Anomalous pixels by falling score, each with its place among the normal ones.

    Attributes:
        scores: Score of an anomalous pixel.
        normals_above: Normal pixels with a higher score.
        normals_reached: Normal pixels with a score at least as high.
        regions: Region of the pixel, counted over all images from 0.
        region_images: Image of a region.
        normals: Number of normal pixels in all images.
    """

    scores: Float[np.ndarray, " p"]
    normals_above: Int64[np.ndarray, " p"]
    normals_reached: Int64[np.ndarray, " p"]
    regions: Int32[np.ndarray, " p"]
    region_images: Int64[np.ndarray, " r"]
    normals: int


def pixel_ranks(maps: Maps, masks: Masks) -> PixelRanks:
    """Rank the anomalous pixels of all images among the normal pixels of all images.

    Args:
        maps: Floats, as `checked_maps` returns them.
        masks: Booleans.

    Raises:
        MetricError: If all pixels are of one class.
    """
    normal = np.concatenate([image[~mask] for image, mask in zip(maps, masks, strict=True)])
    anomalous = np.concatenate([image[mask] for image, mask in zip(maps, masks, strict=True)])
    if not (len(anomalous) and len(normal)):
        missing = "normal" if len(anomalous) else "anomalous"
        raise MetricError(
            f"The masks hold no {missing} pixel, so pixel metrics are undefined; leave them out of the row."
        )
    regions, region_images = label_regions(masks)
    order = np.argsort(-anomalous, kind="stable")
    distinct, inverse = np.unique(anomalous, return_inverse=True)
    below, not_above = count_below(normal, distinct)
    return PixelRanks(
        anomalous[order],
        (len(normal) - not_above)[inverse][order],
        (len(normal) - below)[inverse][order],
        regions[order],
        region_images,
        len(normal),
    )


def count_below(
    values: Float[np.ndarray, " m"], marks: Float[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """How many values lie below each of the rising marks, and how many at or below.

    Runs of values are sorted side by side on the cores: short enough to be cheaper than one long sort, and long enough
    not to be outweighed by the look-ups.
    """
    length = max(_RUN, 4 * len(marks))
    runs = [values[start : start + length] for start in range(0, len(values), length)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        counts = threads.map(lambda run: _count_below(run, marks), runs)
        below, not_above = np.zeros(len(marks), np.int64), np.zeros(len(marks), np.int64)
        for less, less_or_equal in counts:
            below += less
            not_above += less_or_equal
    return below, not_above


def label_regions(masks: Masks) -> tuple[Int32[np.ndarray, " p"], Int64[np.ndarray, " r"]]:
    """Region of every anomalous pixel (row by row, image by image) and image of every region; 8-neighbourhood."""
    from scipy.ndimage import label

    pixels, images, first = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
    for index, mask in enumerate(masks):
        if mask.any():
            labels, count = label(mask, structure=EIGHT_NEIGHBOURS)
            pixels.append((labels[mask] + (first - 1)).astype(np.int32))
            images.append(np.full(count, index))
            first += count
    return np.concatenate(pixels), np.concatenate(images)


def checked_maps(maps: Maps, masks: Masks) -> tuple[list[Float[np.ndarray, "_ _"]], list[Bool[np.ndarray, "_ _"]]]:
    """Maps as floats and masks as booleans.

    Raises:
        MetricError: The first fault found, with the image's index: a map that doesn't fit its mask or holds a pixel
            that isn't finite, a mask that holds other than 0 and 1.
    """
    if len(maps) != len(masks):
        raise MetricError(f"{len(maps)} maps came with {len(masks)} masks; expected one mask per map.")
    for index, (image, mask) in enumerate(zip(maps, masks, strict=True)):
        if image.shape != mask.shape:
            raise MetricError(
                f"Map {index} is {image.shape}, its mask {mask.shape}; enlarge the map, never shrink the mask."
            )
        if not np.isfinite(image).all():
            raise MetricError(f"Map {index} holds a value that isn't finite; every pixel needs a finite score.")
    return [as_scores(image) for image in maps], [as_labels(mask) for mask in masks]


def _count_below(
    values: Float[np.ndarray, " m"], marks: Float[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    rising = np.sort(values)
    return np.searchsorted(rising, marks, side="left"), np.searchsorted(rising, marks, side="right")
