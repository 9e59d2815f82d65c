"""Lesions and boxes one by one: which were found, against which false positives.

A lesion is a connected region of a mask (8-neighbourhood). Boxes come as masks, drawn at the image's resolution; boxes
that touch count as one, and nothing finer than lesions is defined of them, as their pixels aren't all anomalous.

    1 measure    a few numbers per lesion, per false detection and per image; maps aren't needed again
    2 statistic  FROC, sensitivity and the pointing game of these, under any weights of the images
    3 score      the same of maps and masks
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.detections import detections_of
from medfsad_bench.metrics.ranks import Maps, Masks, checked_maps, label_regions

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # per image; Camelyon16, and LUNA16 without its 1/8
IMAGE_FPR = 0.05
_FALSE_PER_IMAGE = 12  # FROC allows 8: what scores lower is hardly ever reached in a replicate
_REPLICATES_AT_ONCE = 256  # bounds memory: lesions or false positives × 256 × 8 bytes × a handful of arrays


@dataclass(frozen=True, slots=True)
class LesionRecord:
    """Lesions (or boxes) and false positives of one detector's maps.

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


def measure_lesions(images: Iterable[tuple[Float[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]]) -> LesionRecord:
    """The record of pairs of a map and its mask, one after the other, each at its mask's resolution.

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
    return LesionRecord(**joined)


def sensitivity_at_fp(
    record: LesionRecord,
    weights: Real[np.ndarray, "n replicates"],
    *,
    by: Literal["detections", "images"],
    allowed: Sequence[float],
) -> Float[np.ndarray, " replicates"]:
    """Share of lesions found before one false positive too many, under weights of the images; NaN without a lesion.

    Args:
        record: Of the maps.
        weights: How often an image counts.
        by: What finds a lesion. `detections`: a detection in it; a false positive is a detection elsewhere, and allowed
            is a number of them per image (FROC). `images`: its highest pixel; a false positive is an image without a
            lesion, by its map's maximum, and allowed is a share of these images.
        allowed: False positives; the one that exceeds them isn't raised, nor what scores as low. The mean over several
            allowances is returned.

    Raises:
        MetricError: If there is no lesion.
    """
    if not len(record.lesion_share):
        raise MetricError("There is no lesion to be found; leave the metric out of the row.")
    if by == "detections":
        counted, lesion_score = np.ones(len(record.image_peak)), record.lesion_detection
        false_score, false_image = record.false_score, record.false_image
    else:
        counted, lesion_score = np.isnan(record.pointing).astype(np.float64), record.lesion_peak
        false_image = np.flatnonzero(counted)
        false_score = record.image_peak[false_image]
    falling = np.argsort(-false_score, kind="stable")
    thresholds = np.append(false_score[falling], -np.inf)
    order = np.argsort(-lesion_score, kind="stable")
    above = np.searchsorted(-lesion_score[order], -thresholds, side="left")  # lesions above each threshold
    shares = []
    for part in np.split(weights, range(_REPLICATES_AT_ONCE, weights.shape[1], _REPLICATES_AT_ONCE), axis=1):
        images = counted @ part.astype(np.float64)
        raised = np.cumsum(part[false_image[falling]], axis=0, dtype=np.float64)
        lesions = np.cumsum(part[record.lesion_image[order]], axis=0, dtype=np.float64)
        lesions = np.concatenate([np.zeros_like(lesions[:1]), lesions])
        total, columns = lesions[-1], np.arange(part.shape[1])
        sums = np.zeros(part.shape[1])
        for rate in allowed:
            budget = rate * images + 1e-6  # 0.05 × 20 is 1, whatever floating point makes of it
            surplus = np.array([np.searchsorted(raised[:, c], budget[c], side="right") for c in columns], np.int64)
            sums += lesions[above[surplus], columns]
        shares.append(np.divide(sums / len(allowed), total, out=np.full_like(total, np.nan), where=total > 0))
    return np.concatenate(shares)


def pointing_game(record: LesionRecord, weights: Real[np.ndarray, "n replicates"]) -> Float[np.ndarray, " replicates"]:
    """`pointing_game_score` of a record under weights of the images."""
    shown = np.isfinite(record.pointing)
    return np.asarray(record.pointing[shown] @ weights[shown] / weights[shown].sum(axis=0))


def froc_score(maps: Maps, masks: Masks) -> float:
    """Mean sensitivity per lesion at 1/4, 1/2, 1, 2, 4 and 8 false detections per image; in [0, 1].

    Source: Bejnordi et al., "Diagnostic assessment of deep learning algorithms for detection of lymph node metastases",
    JAMA 318 (2017), for the six rates; detections here are the map's peaks, see `metrics.detections`.

    Raises:
        MetricError: If there is no lesion, a pixel isn't finite or shapes differ.

    >>> froc_score(np.eye(8)[None], np.eye(8)[None] > 0)
    1.0
    """
    return _of_maps(partial(sensitivity_at_fp, by="detections", allowed=FALSE_POSITIVES), maps, masks)


def lesion_sensitivity_score(maps: Maps, masks: Masks, *, image_fpr: float = IMAGE_FPR) -> float:
    """Share of lesions with a pixel above a threshold that at most `image_fpr` of the images without a lesion reach.

    The threshold is that of an image-level detector that takes the map's maximum; it needs no knowledge of lesions. One
    pixel is enough: the most lenient rule there is. Of boxes it is box recall.

    Raises:
        MetricError: If there is no lesion or no image without one, a pixel isn't finite or shapes differ.

    >>> lesion_sensitivity_score(
    ...     np.array([[[0.9, 0.2, 0.4]], [[0.3, 0.4, 0.1]]]), np.array([[[1, 0, 1]], [[0, 0, 0]]]) > 0
    ... )
    0.5
    """
    if len(masks) and all(mask.any() for mask in masks):
        raise MetricError("Every image has a lesion, so no threshold can be set on images without; leave it out.")
    return _of_maps(partial(sensitivity_at_fp, by="images", allowed=(image_fpr,)), maps, masks)


def pointing_game_score(maps: Maps, boxes: Masks) -> float:
    """Share of anomalous images whose highest pixel lies in a box; of several highest pixels, the share that do.

    Chance is the boxes' mean share of the area. Source: Zhang et al., "Top-down neural attention by excitation
    backprop", IJCV 126 (2018), without its tolerance of 15 pixels.

    Raises:
        MetricError: If no image has a box, a pixel isn't finite or shapes differ.

    >>> pointing_game_score(np.array([[[0.9, 0.2]], [[0.1, 0.4]]]), np.array([[[True, False]], [[True, False]]]))
    0.5
    """
    return _of_maps(pointing_game, maps, boxes)


def _measure(image: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> dict[str, np.ndarray]:
    (image,), (mask,) = checked_maps([image], [mask])
    detected, false = detections_of(image, mask)
    regions, region_images = label_regions([mask])
    peaks = np.full(len(region_images), -np.inf)
    np.maximum.at(peaks, regions, image[mask])
    return {
        "lesion_share": np.bincount(regions, minlength=len(region_images)) / mask.size,
        "lesion_peak": peaks,
        "lesion_detection": detected.astype(np.float64),
        "false_score": false.astype(np.float64),
        "image_peak": np.array([image.max()], dtype=np.float64),
        "pointing": np.array([float(mask[image == image.max()].mean()) if mask.any() else np.nan]),
    }


def _of_maps(
    statistic: Callable[[LesionRecord, Float[np.ndarray, "n 1"]], Float[np.ndarray, " 1"]], maps: Maps, masks: Masks
) -> float:
    maps, masks = checked_maps(maps, masks)
    if not any(mask.any() for mask in masks):
        raise MetricError(f"None of the {len(masks)} masks holds a lesion; leave lesion metrics out of the row.")
    return float(statistic(measure_lesions(zip(maps, masks, strict=True)), np.ones((len(masks), 1)))[0])
