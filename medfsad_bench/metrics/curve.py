"""Statistics of a detector's curve: of the weight of anomalous and normal items at or above every threshold.

    1 order        the items of each class by falling score, once; equal scores are one threshold
    2 accumulate   their weights, under many weightings (bootstrap replicates) at a time
    3 statistic    of the curve, one value per weighting

Only thresholds that are an anomalous item's score, or a normal one's, add to a statistic: so each class is accumulated
by itself, in half the room. The first axis runs over thresholds from high to low; further axes (replicates) are carried
along.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.inputs import LabelArray, ScoreArray, as_labels, as_scores


@dataclass(frozen=True)
class Curve:
    """Cumulative counts (or weights) over falling thresholds.

    Attributes:
        true_positives: Weight of anomalous items that reach the i-th highest score of an anomalous one; first 0.
        false_positives: Weight of normal items that reach the j-th highest score of a normal one; first 0.
        normal_reached: How many of the normal items' scores reach each of the anomalous ones'.
        anomalous_above: How many of the anomalous items' scores lie above each of the normal ones'.
        anomalous_reached: How many reach it; None where no score is of both classes, so that as many lie above it.
    """

    true_positives: Real[np.ndarray, "p *replicates"]
    false_positives: Real[np.ndarray, "n *replicates"]
    normal_reached: Int64[np.ndarray, " found"]
    anomalous_above: Int64[np.ndarray, " false"]
    anomalous_reached: Int64[np.ndarray, " false"] | None

    @property
    def positives(self) -> Real[np.ndarray, "*replicates"]:
        """Weight of all anomalous items, above 0."""
        return np.asarray(self.true_positives[-1])

    @property
    def negatives(self) -> Real[np.ndarray, "*replicates"]:
        """Weight of all normal items, above 0."""
        return np.asarray(self.false_positives[-1])

    @cached_property
    def false_positives_at(self) -> Real[np.ndarray, "t *replicates"]:
        """Weight of normal items that reach the i-th highest score of an anomalous one."""
        return self.false_positives[self.normal_reached]

    @property
    def true_positives_over(self) -> Float[np.ndarray, "t *replicates"]:
        """Weight of anomalous items above the j-th highest score of a normal one; those that have it count half."""
        above = self.true_positives[self.anomalous_above]
        if self.anomalous_reached is None:
            return above
        return (above + self.true_positives[self.anomalous_reached]) / 2


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items in the order of their scores: what a curve under any weights needs to know of them.

    Attributes:
        anomalous: Indices of the anomalous items by falling score.
        normal: Indices of the normal ones.
        anomalous_ends: Which of `anomalous` are the last of their score.
        normal_ends: Which of `normal` are.
        normal_reached: See `Curve`.
        anomalous_above: See `Curve`.
        anomalous_reached: See `Curve`.
    """

    anomalous: Int64[np.ndarray, " m"]
    normal: Int64[np.ndarray, " k"]
    anomalous_ends: Int64[np.ndarray, " p"]
    normal_ends: Int64[np.ndarray, " n"]
    normal_reached: Int64[np.ndarray, " p"]
    anomalous_above: Int64[np.ndarray, " n"]
    anomalous_reached: Int64[np.ndarray, " n"] | None

    @classmethod
    def of(cls, scores: ScoreArray, anomalous: LabelArray) -> "Ranking":
        """Sort the items.

        Args:
            scores: Higher is more anomalous.
            anomalous: Labels.

        Raises:
            MetricError: If a score is not finite, a label is neither 0 nor 1, a class is missing or the lengths differ.
        """
        scores, anomalous = checked(scores, anomalous)
        order = np.argsort(-scores, kind="stable")
        of_classes = [order[anomalous[order]], order[~anomalous[order]]]
        falling = [-scores[indices] for indices in of_classes]  # rising, as `searchsorted` wants it
        ends = [np.flatnonzero(np.append(values[1:] != values[:-1], True)) for values in falling]
        anomalous_steps, normal_steps = (values[last] for values, last in zip(falling, ends, strict=True))
        above, reached = (np.searchsorted(anomalous_steps, normal_steps, side=side) for side in ("left", "right"))
        return cls(
            anomalous=of_classes[0],
            normal=of_classes[1],
            anomalous_ends=ends[0],
            normal_ends=ends[1],
            normal_reached=np.searchsorted(normal_steps, anomalous_steps, side="right"),
            anomalous_above=above,
            anomalous_reached=None if np.array_equal(above, reached) else reached,
        )

    def curve(self, weights: Real[np.ndarray, "n *replicates"]) -> Curve:
        """The curve of the items.

        Args:
            weights: How much each item counts, under one weighting or several.

        Raises:
            MetricError: If a weighting leaves a class without weight.
        """
        curve = Curve(
            accumulated(weights[self.anomalous], self.anomalous_ends),
            accumulated(weights[self.normal], self.normal_ends),
            self.normal_reached,
            self.anomalous_above,
            self.anomalous_reached,
        )
        if not ((curve.positives > 0).all() and (curve.negatives > 0).all()):
            raise MetricError("The weights leave a class empty; every weighting needs anomalous and normal items.")
        return curve


def checked(scores: ScoreArray, anomalous: LabelArray) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Scores as floats and labels as booleans.

    Raises:
        MetricError: If a score is not finite, a label is neither 0 nor 1, a class is missing or the lengths differ.
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
    return scores, anomalous


def rankings(scores: Real[np.ndarray, "draws n"], anomalous: LabelArray) -> list[Ranking]:
    """The ranking of every draw, of the same items; raises as `Ranking.of`."""
    return [Ranking.of(of_draw, anomalous) for of_draw in scores]


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
    return Ranking.of(scores, anomalous).curve(np.ones(len(scores)) if weights is None else weights)


def accumulated(
    weights: Real[np.ndarray, "n *replicates"], ends: Int64[np.ndarray, " kept"] | None = None
) -> Float64[np.ndarray, "t *replicates"]:
    """Cumulative weights, from a row of zeros on.

    Args:
        weights: Of items, in their order.
        ends: Which rows to keep; None keeps all.
    """
    if weights.ndim == 1:
        total = np.append(0.0, np.cumsum(weights, dtype=np.float64))
        return total if ends is None else total[np.append(0, ends + 1)]
    columns = weights[0].size
    # Two columns are added up as one complex number, since an addition waits for the one before. The spare columns keep
    # rows off a distance of a power of two, at which they would drive each other out of the processor's cache.
    table = np.zeros((len(weights) + 1, columns + 4 + columns % 2))
    table[1:, :columns] = weights.reshape(len(weights), columns)
    pairs = table.view(np.complex128)
    np.add.accumulate(pairs, axis=0, out=pairs)
    kept = table if ends is None or len(ends) == len(weights) else table[np.append(0, ends + 1)]
    return kept[:, :columns].reshape(len(kept), *weights.shape[1:])


def auroc(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Area under the ROC curve: P(anomalous above normal) + ½ P(equal) (Mann and Whitney 1947)."""
    steps = np.diff(c.false_positives, axis=0)
    return np.asarray((steps * c.true_positives_over).sum(axis=0) / (c.positives * c.negatives))


def average_precision(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Sum over thresholds of precision × gain in recall; no interpolation."""
    true_positives = c.true_positives[1:]
    nothing = np.finfo(np.float64).tiny  # where nothing has weight yet
    flagged = np.maximum(true_positives + c.false_positives_at, nothing)
    return np.asarray((np.diff(c.true_positives, axis=0) * (true_positives / flagged)).sum(axis=0) / c.positives)


def fpr_at_tpr(c: Curve, *, tpr: float = 0.95) -> Float[np.ndarray, "*replicates"]:
    """Smallest false-positive rate among the thresholds whose true-positive rate is at least `tpr`, above 0."""
    first = np.argmax(c.true_positives[1:] / c.positives >= tpr, axis=0)
    return np.asarray(_at(c.false_positives_at, first) / c.negatives)


def sensitivity_at_specificity(c: Curve, *, specificity: float = 0.95) -> Float[np.ndarray, "*replicates"]:
    """Largest true-positive rate among the thresholds whose specificity is at least `specificity`."""
    allowed = np.count_nonzero((c.negatives - c.false_positives[1:]) / c.negatives >= specificity, axis=0)
    found_above = np.append(c.anomalous_above, len(c.true_positives) - 1)[allowed]  # the first that isn't allowed
    return np.asarray(_at(c.true_positives, found_above) / c.positives)


def precision_at_recall(c: Curve, *, recall: float) -> Float[np.ndarray, "*replicates"]:
    """Share of anomalous ones among what is flagged, at the highest threshold that finds at least `recall` of them."""
    first = np.argmax(c.true_positives[1:] / c.positives >= recall - 1e-9, axis=0)
    true_positives, false_positives = _at(c.true_positives[1:], first), _at(c.false_positives_at, first)
    return np.asarray(true_positives / (true_positives + false_positives))


def f1_max(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Largest F1 (Dice) over all thresholds: an oracle, since it picks the threshold by the labels."""
    true_positives = c.true_positives[1:]
    return np.asarray((2 * true_positives / (c.positives + true_positives + c.false_positives_at)).max(axis=0))


def balanced_accuracy_max(c: Curve) -> Float[np.ndarray, "*replicates"]:
    """Largest mean of sensitivity and specificity over all thresholds, flagging nothing included: an oracle."""
    gain = c.true_positives[1:] / c.positives - c.false_positives_at / c.negatives
    return np.asarray(0.5 + 0.5 * np.maximum(gain.max(axis=0), 0))


def _at(
    table: Real[np.ndarray, "t *replicates"], rows: Int64[np.ndarray, "*replicates"] | np.int64
) -> Real[np.ndarray, "*replicates"]:
    """One row of each column."""
    return np.asarray(np.take_along_axis(table, np.asarray(rows)[None], axis=0)[0])
