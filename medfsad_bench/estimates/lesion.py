"""What a run keeps of lesions and boxes: found at which score, against which false alarms, image by image.

A record is a few numbers a lesion and an image, from which the figures and their intervals are had again without maps.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate
from medfsad_bench.metrics.froc import FALSE_POSITIVES, detections_of
from medfsad_bench.metrics.interval import Replicates, interval_of
from medfsad_bench.metrics.lesion import find_lesions
from medfsad_bench.metrics.resample import Strata, group_weights, strata_of
from medfsad_bench.metrics.sensitivity_at_fp import Alarms, share_found

IMAGE_FPR = 0.05
SHARES = (0.001, 0.01)  # of its image's area: where a small lesion ends, and where a large one begins
_FALSE_PER_IMAGE = 12  # FROC allows 8: what scores lower is hardly ever reached in a replicate


@dataclass(frozen=True, slots=True)
class LesionDraw:
    """Lesions and false alarms of one support draw.

    Attributes:
        lesion_image: Index of a lesion's image.
        lesion_share: Its part of the image's area.
        lesion_peak: Highest score in it.
        lesion_detection: Score of its highest detection, minus infinity without one.
        false_image: Index of a false detection's image.
        false_score: Its score; only the highest are kept.
        image_peak: Highest score of an image.
        pointing: Whether an image's highest pixel lies in a lesion or box (ties shared); NaN where there's none.
    """

    lesion_image: Int64[np.ndarray, " lesions"]
    lesion_share: Float[np.ndarray, " lesions"]
    lesion_peak: Float[np.ndarray, " lesions"]
    lesion_detection: Float[np.ndarray, " lesions"]
    false_image: Int64[np.ndarray, " false"]
    false_score: Float[np.ndarray, " false"]
    image_peak: Float[np.ndarray, " n"]
    pointing: Float[np.ndarray, " n"]

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, for an .npz file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "LesionDraw":
        """The inverse of `arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def measure_lesions(images: Iterable[tuple[Float[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]]) -> LesionDraw:
    """The record of one draw's maps, one image after the other, each at its mask's resolution.

    Raises:
        MetricError: If a map doesn't fit its mask or a pixel isn't finite.
    """
    parts = [_measure(image, mask) for image, mask in images]
    lesions = [len(part["lesion_share"]) for part in parts]
    false = [len(part["false_score"]) for part in parts]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    joined["lesion_image"] = np.repeat(np.arange(len(parts)), lesions)
    joined["false_image"] = np.repeat(np.arange(len(parts)), false)
    top = np.sort(np.argsort(-joined["false_score"], kind="stable")[: _FALSE_PER_IMAGE * len(parts)])
    joined |= {name: joined[name][top] for name in ("false_image", "false_score")}
    return LesionDraw(**joined)


def lesion_estimates(
    draws: Sequence[LesionDraw], groups: Int64[np.ndarray, " n"], *, boxes: bool, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, str]]:
    """Figures with intervals, those by lesion size, and what can't be stated with the reason.

    Args:
        draws: One a support draw, of the same images.
        groups: Group number of every image.
        boxes: Whether the truth is boxes: then only what boxes support.
        seed: Of the bootstrap.
    """
    has_lesion = np.isfinite(draws[0].pointing)
    absent: dict[str, str] = {}
    recall = f"{'box_recall' if boxes else 'lesion_sensitivity'}_image_fpr05"
    if has_lesion.all():
        absent[recall] = "every test image has a lesion, so that no share of normal images can be set"
    strata = strata_of(groups, has_lesion, normal=np.ones_like(has_lesion) if has_lesion.all() else None)
    weights = group_weights(strata, replicates=REPLICATES, seed=seed)

    def figure(statistic: Callable[[LesionDraw, np.ndarray], np.ndarray]) -> Estimate:
        return _figure(draws, weights, strata, statistic, seed=seed)

    found = {"froc_mean6": figure(_froc)}
    by_size: dict[str, Estimate] = {}
    if boxes:
        found["pointing_game"] = figure(_pointing)
    if recall not in absent:
        found[recall] = figure(_recall)
        for name, kept in _size_groups(draws[0]).items():
            by_size[f"{recall}[lesion {name}]"] = figure(partial(_recall, kept=kept))
    return found, by_size, absent


def _measure(image: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> dict[str, np.ndarray]:
    peak = np.array([image.max()], dtype=np.float64)
    detected, false = detections_of(image, mask)
    if not mask.any():
        none, pointing = np.zeros(0), np.nan
        return _part(none, none, none, false, peak, pointing)
    lesions = find_lesions([image], [mask])
    pointing = float(mask[image == image.max()].mean())
    return _part(lesions.size_px / mask.size, lesions.peak, detected, false, peak, pointing)


def _part(
    share: np.ndarray, peak: np.ndarray, detection: np.ndarray, false: np.ndarray, image: np.ndarray, pointing: float
) -> dict[str, np.ndarray]:
    return {
        "lesion_share": share,
        "lesion_peak": peak.astype(np.float64),
        "lesion_detection": detection.astype(np.float64),
        "false_score": false.astype(np.float64),
        "image_peak": image,
        "pointing": np.array([pointing]),
    }


def _figure(
    draws: Sequence[LesionDraw],
    weights: np.ndarray,
    strata: Strata,
    statistic: Callable[[LesionDraw, np.ndarray], np.ndarray],
    *,
    seed: int,
) -> Estimate:
    whole = np.ones((len(weights), 1))
    measured = np.array([float(statistic(draw, whole)[0]) for draw in draws])
    resampled = np.stack([statistic(draw, weights) for draw in draws], axis=1)
    interval = interval_of(Replicates(measured, resampled, strata, seed), area=False)
    return mean_estimate(measured, (interval.low, interval.high))


def _froc(draw: LesionDraw, weights: np.ndarray) -> np.ndarray:
    alarms = Alarms(
        draw.lesion_detection, draw.lesion_image, draw.false_score, draw.false_image, np.ones(len(draw.image_peak))
    )
    return share_found(alarms, weights, allowed=FALSE_POSITIVES)


def _recall(draw: LesionDraw, weights: np.ndarray, *, kept: np.ndarray | None = None) -> np.ndarray:
    everyone = np.ones(len(draw.lesion_peak), dtype=bool)
    return share_found(_by_image(draw, everyone if kept is None else kept), weights, allowed=(IMAGE_FPR,))


def _by_image(draw: LesionDraw, kept: Bool[np.ndarray, " lesions"]) -> Alarms:
    clean = np.isnan(draw.pointing)
    return Alarms(
        draw.lesion_peak[kept],
        draw.lesion_image[kept],
        draw.image_peak[clean],
        np.flatnonzero(clean),
        clean.astype(np.float64),
    )


def _pointing(draw: LesionDraw, weights: np.ndarray) -> np.ndarray:
    shown = np.isfinite(draw.pointing)
    return np.asarray(draw.pointing[shown] @ weights[shown] / weights[shown].sum(axis=0))


def _size_groups(draw: LesionDraw) -> dict[str, Bool[np.ndarray, " lesions"]]:
    place = np.searchsorted(SHARES, draw.lesion_share, side="right")
    names = size_names(SHARES)
    return {name: place == number for number, name in enumerate(names) if (place == number).any()}


def size_names(edges: Sequence[float]) -> list[str]:
    """Names of the groups between shares of an area.

    >>> size_names((0.001, 0.01))
    ['below 0.1 %', '0.1 to 1 %', 'from 1 %']
    """
    shown = [f"{100 * edge:g}" for edge in edges]
    inner = [f"{low} to {high} %" for low, high in zip(shown, shown[1:], strict=False)]  # noqa: RUF007 - of a list
    return [f"below {shown[0]} %", *inner, f"from {shown[-1]} %"]
