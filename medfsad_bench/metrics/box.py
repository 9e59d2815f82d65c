"""What boxes support: whether the map points into one. Their pixels aren't all anomalous, so nothing finer is defined.

Boxes come as masks, drawn at the image's resolution; boxes that touch count as one. FROC (`froc`) works with them too.
"""

import numpy as np

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.lesion import find_lesions
from medfsad_bench.metrics.ranks import Maps, Masks, check_maps


def pointing_game_score(maps: Maps, boxes: Masks) -> float:
    """Share of anomalous images whose highest pixel lies in a box; of several highest pixels, the share that do.

    Chance is the boxes' mean share of the area. Source: Zhang et al., "Top-down neural attention by excitation
    backprop", IJCV 126 (2018), without its tolerance of 15 pixels.

    Raises:
        MetricError: If no image has a box, a pixel isn't finite or shapes differ.

    >>> pointing_game_score(np.array([[[0.9, 0.2]], [[0.1, 0.4]]]), np.array([[[True, False]], [[True, False]]]))
    0.5
    """
    check_maps(maps, boxes)
    hits = [float(box[image == image.max()].mean()) for image, box in zip(maps, boxes, strict=True) if box.any()]
    if not hits:
        raise MetricError(f"None of the {len(boxes)} images has a box; leave the pointing game out of the row.")
    return float(np.mean(hits))


def box_recall_score(maps: Maps, boxes: Masks, *, image_fpr: float = 0.05) -> float:
    """Share of boxes with a pixel above a threshold that at most `image_fpr` of the images without a box reach.

    The threshold is that of an image-level detector that takes the map's maximum; it needs no knowledge of the boxes.

    Raises:
        MetricError: If there is no box or no image without one, a pixel isn't finite or shapes differ.

    >>> box_recall_score(np.array([[[0.9, 0.2, 0.4]], [[0.3, 0.4, 0.1]]]), np.array([[[1, 0, 1]], [[0, 0, 0]]]) > 0)
    0.5
    """
    lesions = find_lesions(maps, boxes)
    clean = [float(image.max()) for image, box in zip(maps, boxes, strict=True) if not box.any()]
    if not clean:
        raise MetricError("Every image has a box, so no threshold can be set on images without; leave box recall out.")
    falling = np.sort(clean)[::-1]
    allowed = int(np.floor(image_fpr * len(falling) + 1e-9))  # 0.05 × 20 is 1, whatever floating point makes of it
    return float(np.mean(lesions.peak > falling[allowed])) if allowed < len(falling) else 1.0
