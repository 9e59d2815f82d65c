"""What a run keeps of its anomaly maps: per draw the pixel figures, and what intervals are drawn from.

    voxel, polygon   figures, a tally of pixels per image and score bin, the lesions and false alarms
    box              the lesions (boxes) and false alarms alone

Figures can be had again from the record alone, without the maps and without torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate
from medfsad_bench.estimates.lesion import LesionDraw, lesion_estimates, measure_lesions
from medfsad_bench.metrics.aupimo import aupimo_score, binned_aupimo
from medfsad_bench.metrics.interval import Replicates, interval_of
from medfsad_bench.metrics.pixel import pixel_metrics
from medfsad_bench.metrics.pixel_interval import pixel_replicate_all, shifted
from medfsad_bench.metrics.ranks import Maps, Masks
from medfsad_bench.metrics.resample import group_weights, strata_of
from medfsad_bench.metrics.score_histogram import (
    PIXEL_STATISTICS,
    ScoreHistogram,
    coarser_edges,
    histogram_at,
    pixel_histogram,
)
from medfsad_bench.metrics.streaming import bounded_metrics, streamed_histogram

BINS = 512  # of a tally; the interval is shifted by what they cost, so they only shape its width
AUPIMO = "aupimo_fpr1e-5_to_1e-4"
PIXEL_METRICS = (*PIXEL_STATISTICS, AUPIMO, "froc_mean6", "lesion_sensitivity_image_fpr05")
BOX_METRICS = ("pointing_game", "box_recall_image_fpr05", "froc_mean6")


@dataclass(frozen=True, slots=True)
class PixelDraw:
    """Pixel figures of one support draw.

    Attributes:
        lesions: Lesions or boxes and false alarms.
        tally: Pixels per image and score bin; None where the truth is boxes.
        figures: By the names of `PIXEL_STATISTICS`, and AUPIMO where it is defined.
        errors: Largest distance of a figure from the exact one; empty where all are exact.
        absent: Why a figure is missing.
    """

    lesions: LesionDraw
    tally: ScoreHistogram | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """`streamed` if pixels were counted in bins, else `exact`."""
        return "streamed" if self.errors else "exact"

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, for an .npz file."""
        found = {f"lesions.{name}": value for name, value in self.lesions.arrays().items()}
        if self.tally is not None:
            found |= {f"tally.{one.name}": getattr(self.tally, one.name) for one in fields(ScoreHistogram)}
        for kind in ("figures", "errors", "absent"):
            known = getattr(self, kind)
            found[f"{kind}.names"] = np.array(list(known), dtype=str)
            found[f"{kind}.values"] = np.array(list(known.values()), dtype=str if kind == "absent" else np.float64)
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PixelDraw":
        """The inverse of `arrays`."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for key, value in arrays.items():
            kind, _, name = key.partition(".")
            parts.setdefault(kind, {})[name] = value
        known = {
            kind: dict(zip(parts[kind]["names"].tolist(), parts[kind]["values"].tolist(), strict=True))
            for kind in ("figures", "errors", "absent")
        }
        tally = ScoreHistogram(**parts["tally"]) if "tally" in parts else None
        return cls(LesionDraw.of_arrays(parts["lesions"]), tally, **known)


def measure_pixels(maps: Maps, masks: Masks) -> PixelDraw:
    """Exact figures, tally and lesions of one draw's maps, each at its mask's resolution."""
    figures, absent = dict(pixel_metrics(maps, masks)), {}
    try:
        figures[AUPIMO] = aupimo_score(maps, masks)
    except MetricError as error:
        absent[AUPIMO] = str(error)
    lesions = measure_lesions(zip(maps, masks, strict=True))
    return PixelDraw(lesions, pixel_histogram(maps, masks, bins=BINS), figures, absent=absent)


def measure_streamed(images: Iterable[tuple[Float[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]]) -> PixelDraw:
    """The same in bounded memory: figures with the largest error they can have.

    Args:
        images: Maps and masks that can be iterated again; each pass reads one image after the other.
    """
    pooled = streamed_histogram(images)
    bounded = bounded_metrics(pooled)
    tally = histogram_at(images, coarser_edges(pooled, bins=BINS))
    return PixelDraw(
        measure_lesions(images),
        tally,
        {name: figure.value for name, figure in bounded.items()},
        {name: figure.error for name, figure in bounded.items()},
        {AUPIMO: "pixels were streamed, and AUPIMO's error has no bound that says something"},
    )


def pixel_estimates(
    draws: Sequence[PixelDraw], groups: Int64[np.ndarray, " n"], *, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, str]]:
    """Means over draws with their 95 % intervals, crossed over groups of images and draws.

    Args:
        draws: One a support draw, of the same images.
        groups: Group number of every image.
        seed: Of the bootstrap.

    Returns:
        Figures, figures by lesion size, and why a figure is missing.
    """
    found: dict[str, Estimate] = {}
    absent: dict[str, str] = {name: why for draw in draws for name, why in draw.absent.items()}
    tables = replicates_of_draws(draws, groups, seed=seed)
    for name, table in tables.items():
        interval = interval_of(table, area=name not in (AUPIMO, "dice_max_oracle"))
        error = max((draw.errors[name] for draw in draws if name in draw.errors), default=None)
        found[name] = mean_estimate(table.measured, (interval.low, interval.high), error=error)
    boxes = draws[0].tally is None
    lesions, by_size, missing = lesion_estimates([draw.lesions for draw in draws], groups, boxes=boxes, seed=seed)
    return found | lesions, by_size, absent | missing


def replicates_of_draws(
    draws: Sequence[PixelDraw], groups: Int64[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, Replicates]:
    """Pixel figures and AUPIMO under every resampling, for intervals and paired differences; empty for boxes."""
    tallies = [draw.tally for draw in draws if draw.tally is not None]
    if not tallies:
        return {}
    tables = pixel_replicate_all(tallies, groups, replicates=REPLICATES, seed=seed)
    if all(AUPIMO in draw.figures for draw in draws):
        tables[AUPIMO] = _aupimo_replicates(tallies, groups, seed=seed)
    return {name: shifted(table, np.array([draw.figures[name] for draw in draws])) for name, table in tables.items()}


def write_pixels(path: Path, draws: Sequence[PixelDraw]) -> None:
    """Write the record of all draws, whole or not at all."""
    arrays = {
        f"{number:02d}/{name}": value for number, draw in enumerate(draws) for name, value in draw.arrays().items()
    }
    temporary = path.with_name(f".{path.name}.tmp.npz")
    np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes the names for options
    temporary.replace(path)


def read_pixels(path: Path) -> list[PixelDraw]:
    """Read the record of a run; empty if it kept none.

    Raises:
        ResultsError: If the file is damaged.
    """
    if not path.is_file():
        return []
    by_draw: dict[str, dict[str, np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                number, name = key.split("/")
                by_draw.setdefault(number, {})[name] = file[key]
        return [PixelDraw.of_arrays(by_draw[number]) for number in sorted(by_draw)]
    except (OSError, ValueError, KeyError) as error:
        raise ResultsError(f"{path}: the pixel record can't be read ({error}). Run the cell again.") from error


def _aupimo_replicates(tallies: Sequence[ScoreHistogram], groups: Int64[np.ndarray, " n"], *, seed: int) -> Replicates:
    strata = strata_of(groups, tallies[0].regions > 0)
    weights = group_weights(strata, replicates=REPLICATES, seed=seed)
    whole = np.ones((len(groups), 1))
    measured = np.array([float(binned_aupimo(tally, whole)[0]) for tally in tallies])
    return Replicates(measured, np.stack([binned_aupimo(tally, weights) for tally in tallies], axis=1), strata, seed)
