"""Pixel metrics of more pixels than memory holds, each with a computed bound of its error.

    1 first     the first millions of pixels place the bins (quantiles)
    2 count     images are read in chunks; a chunk is sorted, counted in the bins, and forgotten
    3 bound     scores within a bin can stand in any order: the metric under the worst and the best bounds the error
    4 again     where the bound misses the tolerance and the images can be read again, bins are placed by the counts

Memory is that of one chunk and of the bins, whatever the number of pixels.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics import curve
from medfsad_bench.metrics.metric import PIXEL_CURVE_METRICS
from medfsad_bench.metrics.ranks import checked_maps
from medfsad_bench.metrics.score_histogram import (
    PixelCurve,
    ScoreHistogram,
    count_pixels,
    edges_of_maps,
    pixel_curve,
)

_COUNTS = ("normal", "anomalous", "overlap", "regions")  # of a histogram: what adds up over images

Image = tuple[Float[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]

TOLERANCE: Mapping[str, float] = {
    "pixel_auroc": 1e-5,
    "pixel_average_precision": 1e-4,
    "aupro_fpr30_conn8": 1e-4,
    "aupro_fpr05_conn8": 1e-4,
    "dice_max_oracle": 1e-4,
}


@dataclass(frozen=True, slots=True)
class Bounded:
    """A metric and how far it can be from the exact one.

    Attributes:
        value: Of the binned scores.
        error: Largest possible distance from the value of the scores themselves; 0 where it is exact.
    """

    value: float
    error: float


def streamed_histogram(images: Iterable[Image], *, bins: int = 2**17, chunk_px: int = 2**22) -> ScoreHistogram:
    """Pixels of all images together, in one row, from which `bounded_metrics` takes the metrics; in bounded memory.

    Args:
        images: Pairs of a map and its mask. What can be iterated again is, if the first pass misses `TOLERANCE`.
        bins: Number of score bins, 24 bytes each.
        chunk_px: Pixels that are held and sorted at a time.

    Raises:
        MetricError: If a class is missing, a pixel isn't finite, or a map doesn't fit its mask.
    """
    histogram, low, high = _count(images, None, bins=bins, chunk_px=chunk_px)
    metrics = bounded_metrics(histogram)
    if isinstance(images, Iterator) or all(metrics[name].error <= TOLERANCE[name] for name in metrics):
        return histogram
    return _count(images, _edges_again(histogram, low, high, bins=bins), bins=bins, chunk_px=chunk_px)[0]


def bounded_metrics(histogram: ScoreHistogram) -> Mapping[str, Bounded]:
    """Metrics of all images of a histogram together, with their error bounds."""
    c = pixel_curve(histogram, np.ones(len(histogram.regions)))
    falling = _one_value_each(histogram)[::-1]
    errors = {
        "pixel_auroc": _auroc_error(c, falling),
        "pixel_average_precision": _average_precision_error(c, falling),
        "aupro_fpr30_conn8": _aupro_error(c, falling, fpr_limit=0.3),
        "aupro_fpr05_conn8": _aupro_error(c, falling, fpr_limit=0.05),
        "dice_max_oracle": _dice_error(c),
    }
    return {name: Bounded(float(PIXEL_CURVE_METRICS[name].statistic(c)), errors[name]) for name in errors}


def _count(
    images: Iterable[Image], edges: Float[np.ndarray, " edges"] | None, *, bins: int, chunk_px: int
) -> tuple[ScoreHistogram, float, float]:
    """Histogram of all images together, with the lowest and the highest score."""
    total: ScoreHistogram | None = None
    low, high = np.inf, -np.inf
    for maps, masks in _chunks(images, chunk_px=chunk_px):
        if edges is None:
            edges = edges_of_maps(maps, masks, bins=bins)
        part = count_pixels(maps, masks, edges)
        sums = {} if total is None else {name: getattr(total, name) + getattr(part, name) for name in _COUNTS}
        total = replace(part, **sums)
        low, high = min(low, *(float(m.min()) for m in maps)), max(high, *(float(m.max()) for m in maps))
    if total is None:
        raise MetricError("No image was given; pixel metrics need at least one map and its mask.")
    return total, low, high


def _chunks(
    images: Iterable[Image], *, chunk_px: int
) -> Iterator[tuple[list[Float[np.ndarray, "_ _"]], list[Bool[np.ndarray, "_ _"]]]]:
    """Images in chunks of at least `chunk_px` pixels."""
    maps: list[Float[np.ndarray, "_ _"]] = []
    masks: list[Bool[np.ndarray, "_ _"]] = []
    for image, mask in images:
        image_as_float, mask_as_bool = checked_maps([image], [mask])
        maps += image_as_float
        masks += mask_as_bool
        if sum(held.size for held in maps) >= chunk_px:
            yield maps, masks
            maps, masks = [], []
    if maps:
        yield maps, masks


def _edges_again(histogram: ScoreHistogram, low: float, high: float, *, bins: int) -> Float[np.ndarray, " edges"]:
    """Edges from what a first pass counted: bins are split in proportion to the pixels in them."""
    kind = histogram.edges.dtype.type
    ends = np.concatenate([[kind(low)], histogram.edges, [np.nextafter(kind(high), kind(np.inf))]])
    counts = [
        counts[0] / max(counts[0].sum(), 1) for counts in (histogram.normal, histogram.anomalous, histogram.overlap)
    ]
    pieces = np.maximum(np.round(np.sum(counts, axis=0) / 3 * bins).astype(np.int64), 1)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    step = (np.arange(len(first)) - first) / np.repeat(pieces, pieces)
    edges = np.repeat(ends[:-1], pieces) + step * np.repeat(np.maximum(np.diff(ends), 0), pieces)
    return np.unique(np.append(edges.astype(histogram.edges.dtype), ends[-1:]))


def _one_value_each(histogram: ScoreHistogram) -> Bool[np.ndarray, " bins"]:
    """Whether a bin can hold one number only, so that its ties are real."""
    next_up = np.nextafter(histogram.edges[:-1], np.asarray(np.inf, dtype=histogram.edges.dtype))
    return np.concatenate([[False], next_up == histogram.edges[1:], [False]])


def _auroc_error(c: PixelCurve, exact: Bool[np.ndarray, " bins"]) -> float:
    """½ Σ pᵦ nᵦ / (P N): a pair in one bin counts ½ and could count 0 or 1."""
    pairs = np.diff(c.true_positives) * np.diff(c.false_positives)
    return float(pairs[~exact].sum() / (2 * c.positives * c.negatives))


def _average_precision_error(c: PixelCurve, exact: Bool[np.ndarray, " bins"]) -> float:
    """Anomalous pixel i of p in a bin has a precision of (T + i) / (T + i + F + n) to (T + p) / (T + p + F)."""
    from scipy.special import digamma

    gain, step = np.diff(c.true_positives), np.diff(c.false_positives)
    reached, flagged = c.true_positives[1:], c.true_positives[1:] + c.false_positives[1:]
    some = (gain > 0) & ~exact
    gain, step, reached, flagged = gain[some], step[some], reached[some], flagged[some]
    value = gain * reached / flagged
    best = gain * reached / (flagged - step)
    harmonic = digamma(flagged + 1) - digamma(flagged - gain + 1)  # Σ 1/k over flagged - gain < k ≤ flagged
    worst = gain - (flagged - reached) * harmonic
    return float(max((best - value).sum(), (value - worst).sum()) / c.positives)


def _aupro_error(c: PixelCurve, exact: Bool[np.ndarray, " bins"], *, fpr_limit: float) -> float:
    """A pixel's false-positive rate lies between those of the bin's ends, and its gain falls with it."""
    rate = c.false_positives / c.negatives
    low, high = rate[:-1], rate[1:]
    spread = np.maximum(fpr_limit - low, 0) - np.maximum(fpr_limit - high, 0)
    return float((c.overlap * spread)[~exact].sum() / (fpr_limit * c.regions))


def _dice_error(c: PixelCurve) -> float:
    """Within a bin, all its anomalous pixels could come before its normal ones."""
    reached, before = c.true_positives[1:], c.false_positives[:-1]
    best = (2 * reached / (c.positives + reached + before)).max()
    return float(best - curve.f1_max(c))
