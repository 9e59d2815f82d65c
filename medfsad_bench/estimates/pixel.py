"""What a run keeps of its anomaly maps: per draw the pixel metrics, and what their intervals are drawn from.

    voxel, polygon   values, a histogram of pixels per image and score bin, the lesions and false positives
    box              the lesions (boxes) and false positives alone

Estimates can be had again from the record alone, without the maps and without torch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate, metric_estimate
from medfsad_bench.estimates.lesion import lesion_estimates
from medfsad_bench.metrics.interval import Replicates, replicates_of, shifted
from medfsad_bench.metrics.lesion import LesionRecord, measure_lesions
from medfsad_bench.metrics.metric import AUPIMO, METRICS, PIXEL_CURVE_METRICS
from medfsad_bench.metrics.pixel import pixel_metrics
from medfsad_bench.metrics.ranks import Maps, Masks, checked_maps, pixel_ranks
from medfsad_bench.metrics.resample import resampling
from medfsad_bench.metrics.score_histogram import (
    ScoreHistogram,
    coarser_edges,
    histogram_at,
    pixel_curve,
    pixel_histogram,
)
from medfsad_bench.metrics.streaming import bounded_metrics, streamed_histogram

BINS = 512  # of a histogram; the interval is shifted by what they cost, so they only shape its width
_FACTS = ("figures", "errors", "absent")  # as files name what a draw holds by metric


@dataclass(frozen=True, slots=True)
class PixelDraw:
    """Pixel metrics of one support draw.

    Attributes:
        lesions: Lesions or boxes and false positives.
        histogram: Pixels per image and score bin; None where the truth is boxes.
        values: Of `PIXEL_CURVE_METRICS` by name, and of AUPIMO where it is defined.
        errors: Largest distance of a value from the exact one; empty where all are exact.
        absent: Why a metric is missing.
    """

    lesions: LesionRecord
    histogram: ScoreHistogram | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, for an .npz file."""
        arrays = {f"lesions.{part.name}": getattr(self.lesions, part.name) for part in fields(LesionRecord)}
        if self.histogram is not None:
            arrays |= {f"tally.{part.name}": getattr(self.histogram, part.name) for part in fields(ScoreHistogram)}
        for kind, facts in zip(_FACTS, (self.values, self.errors, self.absent), strict=True):
            arrays[f"{kind}.names"] = np.array(list(facts), dtype=str)
            arrays[f"{kind}.values"] = np.array(list(facts.values()), dtype=str if kind == "absent" else np.float64)
        return arrays

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PixelDraw":
        """The inverse of `arrays`."""
        parts: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        for key, value in arrays.items():
            kind, _, name = key.partition(".")
            parts[kind][name] = value
        facts = (
            dict(zip(parts[kind]["names"].tolist(), parts[kind]["values"].tolist(), strict=True)) for kind in _FACTS
        )
        histogram = ScoreHistogram(**parts["tally"]) if "tally" in parts else None
        return cls(LesionRecord(**parts["lesions"]), histogram, *facts)


def measure_pixels(maps: Maps, masks: Masks) -> PixelDraw:
    """Exact values, histogram and lesions of one draw's maps, each at its mask's resolution."""
    maps, masks = checked_maps(maps, masks)
    values, absent = pixel_metrics(pixel_ranks(maps, masks)), {}
    try:
        values[AUPIMO.name] = AUPIMO.score(maps, masks)
    except MetricError as error:
        absent[AUPIMO.name] = str(error)
    lesions = measure_lesions(zip(maps, masks, strict=True))
    return PixelDraw(lesions, pixel_histogram(maps, masks, bins=BINS), values, absent=absent)


def measure_streamed(images: Iterable[tuple[Float[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]]) -> PixelDraw:
    """The same in bounded memory: values with the largest error they can have.

    Args:
        images: Maps and masks that can be iterated again; each pass reads one image after the other.
    """
    of_all = streamed_histogram(images)
    bounded = bounded_metrics(of_all)
    histogram = histogram_at(images, coarser_edges(of_all, bins=BINS))
    return PixelDraw(
        measure_lesions(images),
        histogram,
        {name: metric.value for name, metric in bounded.items()},
        {name: metric.error for name, metric in bounded.items()},
        {AUPIMO.name: "pixels were streamed, and AUPIMO's error has no bound that says something"},
    )


def pixel_estimates(
    draws: Sequence[PixelDraw], groups: Int64[np.ndarray, " n"], *, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, str]]:
    """Means over draws with their 95 % intervals, crossed over groups of images and draws.

    Args:
        draws: One per support draw, of the same images.
        groups: Group number of every image.
        seed: Of the bootstrap.

    Returns:
        Estimates, estimates by lesion size, and why a metric is missing.
    """
    estimates: dict[str, Estimate] = {}
    absent: dict[str, str] = {name: why for draw in draws for name, why in draw.absent.items()}
    errors = {name: max(draw.errors[name] for draw in draws if name in draw.errors) for name in draws[0].errors}
    try:
        for name, table in replicates_of_draws(draws, groups, seed=seed).items():
            estimates[name] = metric_estimate(METRICS[name], table, error=errors.get(name))
    except MetricError:  # too few groups for an interval
        for name in draws[0].values:
            if all(name in draw.values for draw in draws):
                values = np.array([draw.values[name] for draw in draws])
                estimates[name] = mean_estimate(values, error=errors.get(name))
    boxes = draws[0].histogram is None
    lesions, by_size, missing = lesion_estimates([draw.lesions for draw in draws], groups, boxes=boxes, seed=seed)
    return estimates | lesions, by_size, absent | missing


def replicates_of_draws(
    draws: Sequence[PixelDraw], groups: Int64[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, Replicates]:
    """Pixel metrics and AUPIMO under every resampling, for intervals and paired differences; empty for boxes.

    Raises:
        MetricError: If the groups allow no interval.
    """
    histograms = [draw.histogram for draw in draws if draw.histogram is not None]
    if not histograms:
        return {}
    has_regions = histograms[0].regions > 0
    has_normal = histograms[0].normal.sum(axis=1) > 0
    has_aupimo = all(AUPIMO.name in draw.values for draw in draws)
    of_pixels = resampling(groups, has_regions, normal=has_normal, replicates=REPLICATES, seed=seed)
    of_images = resampling(groups, has_regions, replicates=REPLICATES, seed=seed) if has_aupimo else of_pixels
    if lacking := of_pixels.lacking or of_images.lacking:
        raise MetricError(lacking)
    tables = replicates_of(histograms, tuple(PIXEL_CURVE_METRICS.values()), of_pixels, weigh=pixel_curve)
    if has_aupimo:
        tables |= replicates_of(histograms, (AUPIMO,), of_images)
    return {name: shifted(table, np.array([draw.values[name] for draw in draws])) for name, table in tables.items()}
