"""Statistics of a detector's curve: of the weight of anomalous and normal items at or above every threshold.

Image scores and bootstrap replicates share these formulas. The first axis runs over the distinct scores from high to
low; further axes (replicates) are carried along.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.inputs import LabelArray, ScoreArray, as_labels, as_scores


@dataclass(frozen=True, slots=True)
class Curve:
    """Cumulative counts (or weights) over falling thresholds.

    Attributes:
        true_positives: Weight of anomalous items whose score reaches threshold t.
        false_positives: Weight of normal items whose score reaches threshold t.
        positives: Weight of all anomalous items, above 0.
        negatives: Weight of all normal items, above 0.
    """

    true_positives: Real[np.ndarray, "t *replicates"]
    false_positives: Real[np.ndarray, "t *replicates"]
    positives: Real[np.ndarray, "*replicates"]
    negatives: Real[np.ndarray, "*replicates"]


def score_curve(
    scores: ScoreArray, weights: Real[np.ndarray, "n *replicates"] | None = None, *, anomalous: LabelArray
) -> Curve:
    """The curve of one score per image.

    Args:
        scores: Higher is more anomalous.
        weights: How much each image counts, under one weighting or several; None counts all the same.
        anomalous: Labels.

    Raises:
        MetricError: If a score is not finite, a label is neither 0 nor 1, a class is missing or a weighting leaves it
            without weight, or the lengths differ.
    """
    scores, anomalous = as_scores(scores), as_labels(anomalous)
    if len(scores) != len(anomalous):
        raise MetricError(f"{len(scores)} scores came with {len(anomalous)} labels; expected one label per score.")
    if not np.isfinite(scores).all():
        index = int(np.argmin(np.isfinite(scores)))
        raise MetricError(f"Score {index} is {scores[index]}; every score has to be finite.")
    if not anomalous.any() or anomalous.all():
        present, missing = ("anomalous", "normal") if len(anomalous) and anomalous.all() else ("normal", "anomalous")
        raise MetricError(
            f"All {len(anomalous)} items are {present}; the metric needs {missing} ones too. Leave it out where a "
            "class is missing."
        )
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of runs of equal scores
    counts = np.ones(len(order)) if weights is None else weights[order].astype(np.float64, copy=False)
    label = anomalous[order].reshape(-1, *[1] * (counts.ndim - 1))
    true_positives = np.cumsum(counts * label, axis=0)
    false_positives = np.cumsum(counts * ~label, axis=0)
    positives, negatives = np.asarray(true_positives[-1]), np.asarray(false_positives[-1])
    if not (np.all(positives > 0) and np.all(negatives > 0)):
        raise MetricError("The weights leave a class empty; every weighting needs anomalous and normal items.")
    return Curve(true_positives[ends], false_positives[ends], positives, negatives)


def auroc(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Area under the ROC curve: P(anomalous above normal) + ½ P(equal) (Mann and Whitney 1947)."""
    before = np.zeros_like(c.true_positives[:1])
    left = np.concatenate([before, c.true_positives[:-1]])
    step = np.diff(c.false_positives, axis=0, prepend=before)
    return np.asarray((step * (c.true_positives + left)).sum(axis=0) / (2 * c.positives * c.negatives))


def average_precision(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Sum over thresholds of precision × gain in recall; no interpolation."""
    gain = np.diff(c.true_positives, axis=0, prepend=np.zeros_like(c.true_positives[:1]))
    flagged = c.true_positives + c.false_positives
    precision = np.divide(c.true_positives, flagged, out=np.zeros(flagged.shape), where=flagged > 0)
    return np.asarray((gain * precision).sum(axis=0) / c.positives)


def fpr_at_tpr(c: Curve, *, tpr: float = 0.95) -> Float[np.ndarray, "*replicates"]:
    """Smallest false-positive rate among the thresholds whose true-positive rate is at least `tpr`."""
    first = np.argmax(c.true_positives / c.positives >= tpr, axis=0)
    at = np.take_along_axis(c.false_positives, np.asarray(first)[None], axis=0)[0]
    return np.asarray(at / c.negatives)


def sensitivity_at_specificity(c: Curve, *, specificity: float = 0.95) -> Float[np.ndarray, "*replicates"]:
    """Largest true-positive rate among the thresholds whose specificity is at least `specificity`."""
    allowed = (c.negatives - c.false_positives) / c.negatives >= specificity
    return np.asarray(np.where(allowed, c.true_positives, 0).max(axis=0) / c.positives)


def precision_at_recall(c: Curve, *, recall: float) -> Float[np.ndarray, "*replicates"]:
    """Share of anomalous ones among what is flagged, at the highest threshold that finds at least `recall` of them."""
    first = np.asarray(np.argmax(c.true_positives / c.positives >= recall - 1e-9, axis=0))[None]
    found, false = (np.take_along_axis(part, first, axis=0)[0] for part in (c.true_positives, c.false_positives))
    return np.asarray(found / (found + false))


def f1_max(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Largest F1 (Dice) over all thresholds: an oracle, since it picks the threshold by the labels."""
    return np.asarray((2 * c.true_positives / (c.positives + c.true_positives + c.false_positives)).max(axis=0))


def balanced_accuracy_max(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Largest mean of sensitivity and specificity over all thresholds, flagging nothing included: an oracle."""
    gain = c.true_positives / c.positives - c.false_positives / c.negatives
    return np.asarray(0.5 + 0.5 * np.maximum(gain.max(axis=0), 0))
