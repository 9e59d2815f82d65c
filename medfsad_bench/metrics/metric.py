"""The catalogue: every metric that a row's `metrics` can hold, one record each, from which everything else reads.

A metric's `statistic` is of weighted images, so that intervals need no second formula. What it takes depends on the
catalogue that it stands in:

    IMAGE_METRICS         a `curve.Curve`
    PIXEL_CURVE_METRICS   a `score_histogram.PixelCurve`
    AUPIMO                a `score_histogram.ScoreHistogram` and the images' weights
    FROC and those below  a `lesion.LesionRecord` and the images' weights
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from medfsad_bench.metrics import aupimo, curve, image, lesion, pixel, score_histogram


@dataclass(frozen=True, slots=True)
class Metric:
    """All that is known of a metric.

    Attributes:
        name: Its key in a row, which states the variant: `fpr30` the limit of the false-positive rate, `conn8` the
            neighbourhood that makes pixels one region, `oracle` a threshold picked by the labels, `image_fpr05` a
            threshold that one normal image in twenty reaches.
        title: As headings say it.
        score: The public function on arrays: scores or maps first, labels, masks or boxes second.
        statistic: The same of weighted images, one value per weighting.
        higher_is_better: Direction.
        low: Smallest value that it can have.
        high: Largest value.
        smooth: Whether it is an area over all thresholds, as intervals need to know; others depend on one threshold.
        curved: Whether it is so far from a mean over images that the intervals leave out groups one by one, too.
        has_effect_size: Whether it is an area under a ROC curve, so that a difference has an effect size.
        source: Who defined it.
    """

    name: str
    title: str
    score: Callable[..., float]
    statistic: Callable[..., Float[np.ndarray, "*replicates"]]
    source: str
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    smooth: bool = False
    curved: bool = False
    has_effect_size: bool = False


def _by_name(*metrics: Metric) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in metrics})


_ROC: Mapping[str, Any] = {"smooth": True, "has_effect_size": True, "source": "Mann and Whitney 1947; Bamber 1975"}
_PRECISION: Mapping[str, Any] = {
    "smooth": True,
    "curved": True,
    "source": "as scikit-learn, no interpolation (Davis and Goadrich 2006)",
}
_OVERLAP: Mapping[str, Any] = {
    "smooth": True,
    "source": "Bergmann et al., IJCV 129 (2021), section 4.2; exact, all regions equal",
}

IMAGE_AUROC = Metric("image_auroc", "image AUROC", image.auroc_score, curve.auroc, **_ROC)
IMAGE_METRICS = _by_name(
    IMAGE_AUROC,
    Metric(
        "image_average_precision",
        "image average precision",
        image.average_precision_score,
        curve.average_precision,
        **_PRECISION,
    ),
    Metric(
        "image_fpr_at_tpr95",
        "image FPR at TPR 95 %",
        image.fpr_at_tpr_error,
        curve.fpr_at_tpr,
        "a point of the ROC curve (Liang et al., ICLR 2018)",
        higher_is_better=False,
    ),
    Metric(
        "image_sensitivity_at_specificity95",
        "image sensitivity at specificity 95 %",
        image.sensitivity_at_specificity_score,
        curve.sensitivity_at_specificity,
        "a point of the ROC curve (Zweig and Campbell 1993)",
    ),
    Metric(
        "image_f1_max_oracle",
        "largest image F1 (oracle)",
        image.f1_max_score,
        curve.f1_max,
        "van Rijsbergen 1979, at the best threshold",
    ),
    Metric(
        "image_balanced_accuracy_max_oracle",
        "largest balanced accuracy (oracle)",
        image.balanced_accuracy_max_score,
        curve.balanced_accuracy_max,
        "½ (J + 1), J of Youden 1950",
        low=0.5,  # flagging nothing has one half
    ),
)
PIXEL_CURVE_METRICS = _by_name(
    Metric("pixel_auroc", "pixel AUROC", pixel.pixel_auroc_score, curve.auroc, **_ROC),
    Metric(
        "pixel_average_precision",
        "pixel average precision",
        pixel.pixel_average_precision_score,
        curve.average_precision,
        **_PRECISION,
    ),
    Metric(
        "aupro_fpr30_conn8",
        "AUPRO to FPR 30 %",
        partial(pixel.aupro_score, fpr_limit=0.3),
        partial(score_histogram.aupro, fpr_limit=0.3),
        **_OVERLAP,
    ),
    Metric(
        "aupro_fpr05_conn8",
        "AUPRO to FPR 5 %",
        partial(pixel.aupro_score, fpr_limit=0.05),
        partial(score_histogram.aupro, fpr_limit=0.05),
        **_OVERLAP,
    ),
    Metric(
        "dice_max_oracle",
        "largest Dice (oracle)",
        pixel.dice_max_score,
        curve.f1_max,
        "Dice 1945, at the best threshold",
    ),
)
AUPIMO = Metric(
    "aupimo_fpr1e-5_to_1e-4",
    "AUPIMO",
    aupimo.aupimo_score,
    aupimo.binned_aupimo,
    "Bertoldo et al., BMVC 2024, exact",
)
FROC = Metric(
    "froc_mean6",
    "FROC, mean of six rates",
    lesion.froc_score,
    partial(lesion.sensitivity_at_fp, by="detections", allowed=lesion.FALSE_POSITIVES),
    "rates of Bejnordi et al., JAMA 318 (2017); a detection is a peak of the map",
)
LESION_SENSITIVITY = Metric(
    "lesion_sensitivity_image_fpr05",
    "lesion sensitivity at image FPR 5 %",
    lesion.lesion_sensitivity_score,
    partial(lesion.sensitivity_at_fp, by="images", allowed=(lesion.IMAGE_FPR,)),
    "own: one pixel above a threshold that one image in twenty without a lesion reaches",
)
BOX_RECALL = replace(LESION_SENSITIVITY, name="box_recall_image_fpr05", title="box recall at image FPR 5 %")
POINTING_GAME = Metric(
    "pointing_game",
    "pointing game",
    lesion.pointing_game_score,
    lesion.pointing_game,
    "Zhang et al., IJCV 126 (2018), without its tolerance",
)

PIXEL_METRICS = _by_name(*PIXEL_CURVE_METRICS.values(), AUPIMO, FROC, LESION_SENSITIVITY)  # what masks support
BOX_METRICS = _by_name(POINTING_GAME, BOX_RECALL, FROC)  # what boxes support
METRICS: Mapping[str, Metric] = MappingProxyType({**IMAGE_METRICS, **PIXEL_METRICS, **BOX_METRICS})
RANKING = IMAGE_AUROC  # what the board ranks by


def title_of(name: str) -> str:
    """A metric's name as headings say it, also of one that isn't listed here, and of a part of it.

    >>> title_of("image_auroc"), title_of("image_auroc_pooled_top1"), title_of("ppv[prevalence 1 %]")
    ('image AUROC', 'image auroc pooled top1', 'PPV, prevalence 1 %')
    """
    whole, bracket, part = name.partition("[")
    words = METRICS[whole].title if whole in METRICS else whole.replace("_", " ")
    words = words.replace("ppv", "PPV").replace("npv", "NPV")  # of predictive values
    return f"{words}, {part.removesuffix(']')}" if bracket else words
