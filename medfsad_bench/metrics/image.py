"""Image level: one score per image against one label per image, higher is more anomalous.

Every function is exact (all distinct scores are thresholds; equal scores are one threshold), depends on the order of
the scores only, and raises `MetricError` where a class is missing, a score isn't finite, a label is neither 0 nor 1, or
the lengths differ. Scores may be of any real type, labels boolean or integer.
"""

import numpy as np  # noqa: F401 - for the examples

from medfsad_bench.metrics import curve
from medfsad_bench.metrics.curve import score_curve
from medfsad_bench.metrics.inputs import LabelArray, ScoreArray


def auroc_score(scores: ScoreArray, anomalous: LabelArray) -> float:
    """Area under the ROC curve, in [0, 1]; 0.5 is chance, whatever the share of anomalous images.

    P(s⁺ > s⁻) + ½ P(s⁺ = s⁻) over all pairs of an anomalous and a normal image (Mann and Whitney 1947; Bamber 1975).

    >>> auroc_score(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    return float(curve.auroc(score_curve(scores, anomalous=anomalous)))


def average_precision_score(scores: ScoreArray, anomalous: LabelArray) -> float:
    """Average precision Σ (Rₜ - Rₜ₋₁) Pₜ, in (0, 1]; chance is the share of anomalous images.

    No interpolation between thresholds, as in scikit-learn; the trapezoid would flatter (Davis and Goadrich 2006).

    >>> average_precision_score(np.array([0.1, 0.4, 0.8, 0.8]), np.array([False, True, False, True]))
    0.5833333333333333
    """
    return float(curve.average_precision(score_curve(scores, anomalous=anomalous)))


def fpr_at_tpr_error(scores: ScoreArray, anomalous: LabelArray, *, tpr: float = 0.95) -> float:
    """Share of normal images flagged when at least `tpr` of the anomalous ones are; in [0, 1], lower is better.

    Of all thresholds that reach `tpr` the highest is taken; no interpolation.

    >>> fpr_at_tpr_error(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.5
    """
    return float(curve.fpr_at_tpr(score_curve(scores, anomalous=anomalous), tpr=tpr))


def sensitivity_at_specificity_score(scores: ScoreArray, anomalous: LabelArray, *, specificity: float = 0.95) -> float:
    """Share of anomalous images flagged when at least `specificity` of the normal ones are not; in [0, 1].

    With n normal images only multiples of 1/n can be had: below 20 of them a specificity of 0.95 means no false
    positive.

    >>> sensitivity_at_specificity_score(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.5
    """
    return float(curve.sensitivity_at_specificity(score_curve(scores, anomalous=anomalous), specificity=specificity))


def f1_max_score(scores: ScoreArray, anomalous: LabelArray) -> float:
    """Largest F1 = 2 TP / (2 TP + FP + FN) over all thresholds: an **oracle**, its threshold is picked by the labels.

    Flagging everything already gives 2π/(1 + π) at a share π of anomalous images.

    >>> f1_max_score(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.8
    """
    return float(curve.f1_max(score_curve(scores, anomalous=anomalous)))


def balanced_accuracy_max_score(scores: ScoreArray, anomalous: LabelArray) -> float:
    """Largest ½ (sensitivity + specificity) over all thresholds: an **oracle**; in [0.5, 1] (Youden's J is 2× - 1).

    >>> balanced_accuracy_max_score(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    return float(curve.balanced_accuracy_max(score_curve(scores, anomalous=anomalous)))
