"""Pixels counted per score bin: what pixel metrics need when pixels can't be kept or are weighed many times.

A bin is treated as if its scores were equal, so a metric of a histogram is the exact metric of rounded scores. Bins lie
at quantiles, half of them of the anomalous pixels, and a value that many pixels share has a bin of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics import curve
from medfsad_bench.metrics.pixel import overlap_gain
from medfsad_bench.metrics.ranks import Maps, Masks, count_below, label_regions

_SAMPLE_PX = 2**22  # about as many normal pixels are looked at to place the edges


@dataclass(frozen=True, slots=True)
class ScoreHistogram:
    """Pixels per image and score bin.

    Attributes:
        edges: Rising; bin b holds the scores in [edges[b - 1], edges[b]), the first and the last bin are open.
        normal: Number of normal pixels.
        anomalous: Number of anomalous pixels.
        overlap: Sum of 1 / size of the pixel's region.
        regions: Number of connected regions (8-neighbourhood) of an image.
    """

    edges: Float[np.ndarray, " edges"]
    normal: Real[np.ndarray, "n bins"]
    anomalous: Real[np.ndarray, "n bins"]
    overlap: Float[np.ndarray, "n bins"]
    regions: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class PixelCurve(curve.Curve):
    """Cumulative pixels over falling bins, under one weighting of the images or several.

    Attributes:
        overlap: Per bin the summed overlap of regions (not cumulative).
        regions: Weight of all regions.
    """

    overlap: Real[np.ndarray, "t *replicates"]
    regions: Real[np.ndarray, "*replicates"]


def pixel_histogram(maps: Maps, masks: Masks, *, bins: int = 2048) -> ScoreHistogram:
    """Count the pixels of every image in about `bins` bins, from which pixel metrics are resampled.

    Takes 12 bytes × bins per image: 25 KiB at the default, whatever the image's size.

    Args:
        maps: Floats, as `checked_maps` returns them.
        masks: Booleans.
        bins: About how many.

    Raises:
        MetricError: If there is no pixel at all.
    """
    step = max(sum(image.size for image in maps) // _SAMPLE_PX, 1)
    return histogram_at(zip(maps, masks, strict=True), edges_of_maps(maps, masks, bins=bins, step=step))


def histogram_at(
    images: Iterable[tuple[Float[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]], edges: Float[np.ndarray, " edges"]
) -> ScoreHistogram:
    """Count the pixels of every image in the bins between `edges`; images are held one at a time."""
    rows = [count_pixels([image], [mask], edges) for image, mask in images]
    return ScoreHistogram(
        edges,
        np.concatenate([row.normal for row in rows], dtype=np.float32),
        np.concatenate([row.anomalous for row in rows], dtype=np.float32),
        np.concatenate([row.overlap for row in rows], dtype=np.float32),
        np.concatenate([row.regions for row in rows]),
    )


def count_pixels(maps: Maps, masks: Masks, edges: Float[np.ndarray, " edges"]) -> ScoreHistogram:
    """Count the pixels of all images together in the bins between `edges`: a histogram with one row."""
    normal = np.concatenate([image[~mask] for image, mask in zip(maps, masks, strict=True)])
    below = np.concatenate([[0], count_below(normal, edges)[0], [len(normal)]])
    anomalous = np.concatenate([image[mask] for image, mask in zip(maps, masks, strict=True)])
    regions, region_images = label_regions(masks)
    share = 1 / np.bincount(regions, minlength=1)[regions]
    bin_of_pixel = np.searchsorted(edges, anomalous, side="right")
    bins = len(edges) + 1
    return ScoreHistogram(
        edges,
        np.diff(below)[None],
        np.bincount(bin_of_pixel, minlength=bins)[None],
        np.bincount(bin_of_pixel, weights=share, minlength=bins).astype(np.float64)[None],
        np.array([len(region_images)]),
    )


def edges_of_maps(maps: Maps, masks: Masks, *, bins: int, step: int = 1) -> Float[np.ndarray, " edges"]:
    """Edges at quantiles: half of the anomalous pixels', a quarter of the normals', a quarter of the normals' top 10 %.

    A score that fills several bins gets one of its own, between itself and the next number, and costs no accuracy.

    If one class has no pixel yet, the other places all edges. Of the normal pixels every `step`-th is looked at.

    Raises:
        MetricError: If there is no pixel at all.
    """
    normal = np.concatenate([image[~mask][::step] for image, mask in zip(maps, masks, strict=True)])
    anomalous = np.concatenate([image[mask] for image, mask in zip(maps, masks, strict=True)])
    if not (len(normal) or len(anomalous)):
        raise MetricError("There is no pixel to place bins by; give at least one map that isn't empty.")
    normal, anomalous = (normal if len(normal) else anomalous), (anomalous if len(anomalous) else normal)
    tail = 1 - np.geomspace(0.1, 1 / max(len(normal), 20), bins // 4)
    marks = [
        _quantiles(anomalous, np.linspace(0, 1, bins // 2)),
        _quantiles(normal, np.linspace(0, 1, bins // 4)),
        _quantiles(normal, tail),
    ]
    edges, times = np.unique(np.concatenate(marks), return_counts=True)
    shared = edges[times > 1]
    return np.unique(np.concatenate([edges, np.nextafter(shared, np.asarray(np.inf, dtype=shared.dtype))]))


def coarser_edges(histogram: ScoreHistogram, *, bins: int) -> Float[np.ndarray, " edges"]:
    """About `bins` of the edges of a histogram with one row, placed as `edges_of_maps` places them."""
    shares = [np.cumsum(counts[0])[:-1] / counts[0].sum() for counts in (histogram.anomalous, histogram.normal)]
    tail = 1 - np.geomspace(0.1, 1 / max(float(histogram.normal.sum()), 20), bins // 4)
    indices = [
        np.searchsorted(shares[0], np.linspace(0, 1, bins // 2)),
        np.searchsorted(shares[1], np.linspace(0, 1, bins // 4)),
        np.searchsorted(shares[1], tail),
    ]
    return histogram.edges[np.unique(np.minimum(np.concatenate(indices), len(histogram.edges) - 1))]


def pixel_curve(histogram: ScoreHistogram, weights: Real[np.ndarray, "n *replicates"]) -> PixelCurve:
    """Sum the images' histograms under a weight per image, or under several at once, and accumulate from the top.

    Raises:
        MetricError: If a weighting leaves a class without a pixel.
    """
    anomalous, normal, overlap = (
        np.flip(counts.T @ weights, axis=0) for counts in (histogram.anomalous, histogram.normal, histogram.overlap)
    )
    bins = np.arange(len(anomalous))  # each is a threshold that pixels of both classes may have
    regions = np.asarray(histogram.regions @ weights)
    c = PixelCurve(
        curve.accumulated(anomalous),
        curve.accumulated(normal),
        bins + 1,
        bins,
        bins + 1,
        overlap=overlap,
        regions=regions,
    )
    if not (np.all(c.positives > 0) and np.all(c.negatives > 0)):
        raise MetricError("The weights leave the anomalous or the normal pixels empty; both are needed.")
    return c


def aupro(c: PixelCurve, *, fpr_limit: float) -> Float[np.ndarray, "*replicates"]:
    """AUPRO of a histogram."""
    rate = c.false_positives / c.negatives
    low, high = rate[:-1], rate[1:]
    return np.asarray((c.overlap * overlap_gain(low, high, fpr_limit=fpr_limit)).sum(axis=0) / c.regions)


def _quantiles(values: Float[np.ndarray, " m"], shares: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    rising = np.sort(values)
    return rising[np.round(shares * (len(rising) - 1)).astype(np.int64)]
