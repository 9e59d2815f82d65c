"""Detections: the peaks of an anomaly map, and what they hit.

A detection is a peak of the map: no pixel within a window around it is higher; neighbouring pixels of one height are
one peak. It is true if most of it lies in a lesion (or box), else false. A second detection in a lesion is neither.
"""

import numpy as np
from jaxtyping import Bool, Float

from medfsad_bench.metrics.ranks import EIGHT_NEIGHBOURS

SEPARATION = 1 / 16  # half the window in which a peak has to be highest, as a share of the image's shorter edge


def detections_of(
    image: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, " lesions"], Float[np.ndarray, " detections"]]:
    """Scores of one image's detections: the highest in each lesion or minus infinity, and those outside lesions."""
    from scipy.ndimage import label, maximum_filter

    reach = max(round(SEPARATION * min(image.shape)), 1)
    highest = image == maximum_filter(image, size=2 * reach + 1, mode="nearest")
    peaks, count = label(highest, structure=EIGHT_NEIGHBOURS)
    lesions, lesion_count = label(mask, structure=EIGHT_NEIGHBOURS)
    peak_of_pixel, pixels = peaks.ravel(), np.flatnonzero(peaks)
    members = np.zeros((count, lesion_count + 1), dtype=np.int64)
    np.add.at(members, (peak_of_pixel[pixels] - 1, lesions.ravel()[pixels]), 1)
    scores = np.zeros(count, dtype=image.dtype)
    scores[peak_of_pixel[pixels] - 1] = image.ravel()[pixels]
    hit = np.where(2 * members.max(axis=1) > members.sum(axis=1), members.argmax(axis=1), 0)
    best = np.full(lesion_count + 1, -np.inf)
    np.maximum.at(best, hit, scores)
    return best[1:], scores[hit == 0].astype(np.float64)
