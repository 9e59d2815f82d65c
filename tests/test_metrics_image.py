"""Image-level metrics against scikit-learn, a slow reference, hand-worked examples and their invariants."""

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics import image

METRICS = [
    image.auroc_score,
    image.average_precision_score,
    image.fpr_at_tpr_error,
    image.sensitivity_at_specificity_score,
    image.f1_max_score,
    image.balanced_accuracy_max_score,
]


@st.composite
def labelled_scores(draw: Any) -> Any:
    """Scores with many ties, and labels of both classes."""
    size = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(-3, 8), min_size=size, max_size=size))
    labels = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    labels[0], labels[-1] = True, False
    return np.array(scores, dtype=float), np.array(labels)


def thresholds_by_hand(scores: Any, anomalous: Any) -> Any:
    """Rates at every threshold, one by one."""
    points = []
    for threshold in [np.inf, *sorted(set(scores), reverse=True)]:
        flagged = scores >= threshold
        points.append((int((flagged & anomalous).sum()), int((flagged & ~anomalous).sum())))
    return points, int(anomalous.sum()), int((~anomalous).sum())


@given(labelled_scores())
def test_metrics_equal_scikit_learn(case: Any) -> None:
    from sklearn import metrics as sk

    scores, anomalous = case
    fpr, tpr, _ = sk.roc_curve(anomalous, scores, drop_intermediate=False)
    precision, recall, _ = sk.precision_recall_curve(anomalous, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    expected = [
        sk.roc_auc_score(anomalous, scores),
        sk.average_precision_score(anomalous, scores),
        fpr[tpr >= 0.95].min(),
        tpr[1 - fpr >= 0.95 - 1e-12].max(),
        f1.max(),
        ((tpr + 1 - fpr) / 2).max(),
    ]
    assert [metric(scores, anomalous) for metric in METRICS] == pytest.approx(expected, abs=1e-9)


@given(labelled_scores())
def test_metrics_equal_a_slow_reference(case: Any) -> None:
    scores, anomalous = case
    points, positives, negatives = thresholds_by_hand(scores, anomalous)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[anomalous] for b in scores[~anomalous]]
    precision = sum(
        (tp - before) / positives * tp / (tp + fp) for (before, _), (tp, fp) in itertools.pairwise(points) if tp + fp
    )
    expected = [
        np.mean(pairs),
        precision,
        min(fp / negatives for tp, fp in points if tp / positives >= 0.95),
        max(tp / positives for tp, fp in points if (negatives - fp) / negatives >= 0.95),
        max(2 * tp / (positives + tp + fp) for tp, fp in points),
        max(tp / positives + 1 - fp / negatives for tp, fp in points) / 2,
    ]
    assert [metric(scores, anomalous) for metric in METRICS] == pytest.approx(expected, abs=1e-12)


@given(labelled_scores())
def test_only_the_order_of_the_scores_matters(case: Any) -> None:
    scores, anomalous = case
    for metric in METRICS:
        assert metric(np.exp(scores) * 3 - 7, anomalous) == metric(scores, anomalous)


@given(labelled_scores(), st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(case: Any, random: Random) -> None:
    scores, anomalous = case
    order = np.array(random.sample(range(len(scores)), len(scores)))
    for metric in METRICS:
        assert metric(scores[order], anomalous[order]) == pytest.approx(metric(scores, anomalous), abs=1e-12)


@given(labelled_scores())
def test_flipped_labels_give_one_minus_auroc(case: Any) -> None:
    scores, anomalous = case
    assert image.auroc_score(scores, ~anomalous) == pytest.approx(1 - image.auroc_score(scores, anomalous), abs=1e-12)


@given(labelled_scores())
def test_every_metric_lies_between_0_and_1(case: Any) -> None:
    assert all(0 <= metric(*case) <= 1 for metric in METRICS)


def test_a_constant_score_is_chance() -> None:
    scores, anomalous = np.zeros(10), np.arange(10) < 3
    assert image.auroc_score(scores, anomalous) == 0.5
    assert image.average_precision_score(scores, anomalous) == pytest.approx(0.3)
    assert image.fpr_at_tpr_error(scores, anomalous) == 1.0
    assert image.sensitivity_at_specificity_score(scores, anomalous) == 0.0
    assert image.balanced_accuracy_max_score(scores, anomalous) == 0.5


def test_nineteen_of_twenty_is_a_sensitivity_of_95_percent() -> None:
    """0.95 in floating point must not push the threshold one image further."""
    anomalous = np.arange(40) < 20
    scores = np.where(anomalous, 2.0, 1.0)
    scores[0] = 0.0
    assert image.fpr_at_tpr_error(scores, anomalous) == 0.0
    assert image.sensitivity_at_specificity_score(-scores, ~anomalous) == 1.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("scores", "anomalous", "message"),
    [
        ([0.1, 0.2], [False, False], "needs anomalous ones"),
        ([0.1, 0.2], [True, True], "needs normal ones"),
        ([0.1, np.nan], [True, False], "Score 1 is nan"),
        ([0.1, -np.inf], [True, False], "Score 1 is -inf"),
        ([], [], "All 0 items"),
    ],
)
def test_an_undefined_metric_is_an_error(
    metric: Callable[..., float], scores: Any, anomalous: Any, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        metric(np.array(scores, dtype=float), np.array(anomalous, dtype=bool))


def test_scores_are_not_modified() -> None:
    scores, anomalous = np.array([0.3, 0.1, 0.2]), np.array([True, False, True])
    before = scores.copy()
    for metric in METRICS:
        metric(scores, anomalous)
    assert (scores == before).all()
