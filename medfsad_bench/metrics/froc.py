"""Free-response ROC: lesions found against false detections per image, for masks and for boxes.

A detection is a peak of the map: no pixel within a window around it is higher; neighbouring pixels of one height are
one peak. It is true if most of it lies in a lesion, else false. A second detection in a lesion is neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.ranks import EIGHT_NEIGHBOURS, Maps, Masks, check_maps

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # per image; Camelyon16, and LUNA16 without its 1/8


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections of a test set, by what they hit.

    Attributes:
        lesions: Per lesion the score of its highest detection; minus infinity if it has none.
        lesion_images: Index of a lesion's image.
        false: Scores of the detections outside lesions.
        false_images: Index of such a detection's image.
        images: Number of images.
    """

    lesions: Float[np.ndarray, " lesions"]
    lesion_images: Int64[np.ndarray, " lesions"]
    false: Float[np.ndarray, " detections"]
    false_images: Int64[np.ndarray, " detections"]
    images: int


def detect(maps: Maps, masks: Masks, *, separation: float = 1 / 16) -> Detections:
    """Find the peaks of all maps and what they hit.

    Args:
        maps: Anomaly maps.
        masks: Lesions, or boxes drawn as masks.
        separation: Half the window in which a peak has to be highest, as a share of the image's shorter edge.

    Raises:
        MetricError: If there is no lesion, a pixel isn't finite or shapes differ.
    """
    check_maps(maps, masks)
    found = [detections_of(image, mask, separation=separation) for image, mask in zip(maps, masks, strict=True)]
    lesions = np.concatenate([lesion for lesion, _ in found]) if found else np.zeros(0)
    if not len(lesions):
        raise MetricError(f"None of the {len(masks)} masks holds a lesion; leave FROC out of the row.")
    return Detections(
        lesions,
        np.repeat(np.arange(len(found)), [len(lesion) for lesion, _ in found]),
        np.concatenate([false for _, false in found]),
        np.repeat(np.arange(len(found)), [len(false) for _, false in found]),
        len(found),
    )


def sensitivity_at_false_positives(detections: Detections, *, per_image: float) -> float:
    """Share of lesions detected at the lowest threshold with at most `per_image` false detections an image."""
    return float(np.mean(detections.lesions >= threshold_at_false_positives(detections, per_image=per_image)))


def threshold_at_false_positives(detections: Detections, *, per_image: float) -> float:
    """Lowest score of a lesion's detection with at most `per_image` false detections an image, or infinity."""
    scores = np.unique(detections.lesions[np.isfinite(detections.lesions)])
    false = len(detections.false) - np.searchsorted(np.sort(detections.false), scores, side="left")
    allowed = scores[false <= per_image * detections.images]
    return float(allowed[0]) if len(allowed) else float("inf")


def froc_score(
    maps: Maps,
    masks: Masks,
    *,
    separation: float = 1 / 16,
    false_positives: Sequence[float] = FALSE_POSITIVES,
) -> float:
    """Mean sensitivity per lesion at 1/4, 1/2, 1, 2, 4 and 8 false detections an image; in [0, 1].

    Source: Bejnordi et al., "Diagnostic assessment of deep learning algorithms for detection of lymph node metastases",
    JAMA 318 (2017), for the six rates; detections here are the map's peaks.

    Raises:
        MetricError: If there is no lesion, a pixel isn't finite or shapes differ.

    >>> froc_score(np.eye(8)[None], np.eye(8)[None] > 0)
    1.0
    """
    detections = detect(maps, masks, separation=separation)
    return float(np.mean([sensitivity_at_false_positives(detections, per_image=rate) for rate in false_positives]))


def detections_of(
    image: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], *, separation: float = 1 / 16
) -> tuple[Float[np.ndarray, " lesions"], Float[np.ndarray, " detections"]]:
    """Scores of one image's detections: per lesion the highest in it or minus infinity, and those outside lesions."""
    from scipy.ndimage import label

    peaks, count = label(_peaks(image, separation=separation), structure=EIGHT_NEIGHBOURS)
    lesions, lesion_count = label(mask, structure=EIGHT_NEIGHBOURS)
    flat, place = peaks.ravel(), np.flatnonzero(peaks)
    members = np.zeros((count, lesion_count + 1), dtype=np.int64)
    np.add.at(members, (flat[place] - 1, lesions.ravel()[place]), 1)
    scores = np.zeros(count, dtype=image.dtype)
    scores[flat[place] - 1] = image.ravel()[place]
    hit = np.where(2 * members.max(axis=1) > members.sum(axis=1), members.argmax(axis=1), 0)
    best = np.full(lesion_count + 1, -np.inf)
    np.maximum.at(best, hit, scores)
    return best[1:], scores[hit == 0].astype(np.float64)


def _peaks(image: Float[np.ndarray, "h w"], *, separation: float) -> Bool[np.ndarray, "h w"]:
    from scipy.ndimage import maximum_filter

    reach = max(round(separation * min(image.shape)), 1)
    return np.asarray(image == maximum_filter(image, size=2 * reach + 1, mode="nearest"))
