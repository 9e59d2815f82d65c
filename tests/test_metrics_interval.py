"""Bootstrap intervals: their weights against a slow reference, their invariants, and their coverage by simulation."""

from typing import Any

import numpy as np
import pytest

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.curve import score_curve
from medfsad_bench.metrics.interval import Interval, interval_of, percentile_interval, replicate
from medfsad_bench.metrics.metric import IMAGE_AUROC, IMAGE_METRICS, Metric
from medfsad_bench.metrics.resample import resampling


def detector(
    rng: np.random.Generator,
    *,
    draws: int = 1,
    each: int = 30,
    shift: float = 1.0,
    image_sd: float = 1.0,
    draw_sd: float = 0.0,
    cell_sd: float = 0.0,
) -> Any:
    """Scores of `each` normal and `each` anomalous images: image effects, draw effects on the shift, and noise."""
    anomalous = np.arange(2 * each) < each
    scores = image_sd * rng.normal(size=2 * each) + cell_sd * rng.normal(size=(draws, 2 * each))
    scores[:, anomalous] += shift + draw_sd * rng.normal(size=(draws, 1))
    return scores, anomalous


def bootstrap_interval(
    scores: Any, anomalous: Any, groups: Any, *, metric: Metric = IMAGE_AUROC, level: float = 0.95, **options: int
) -> Interval:
    """Interval of the mean over support draws, for new images and new draws."""
    table = replicate(scores, anomalous, groups, metric=metric, **options)
    return interval_of(table, smooth=metric.smooth, level=level)


@pytest.mark.parametrize("metric", IMAGE_METRICS.values(), ids=IMAGE_METRICS.keys())
def test_a_weight_is_a_repetition(metric: Metric) -> None:
    """A weighted metric is the metric of the images repeated."""
    rng = np.random.default_rng(3)
    scores, anomalous = rng.integers(0, 9, 40).astype(float), rng.random(40) < 0.4
    weights = rng.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), weights)
    weighted = metric.statistic(score_curve(scores, weights, anomalous=anomalous))
    plain = metric.score(scores[repeated], anomalous[repeated])
    assert float(weighted) == pytest.approx(plain, abs=1e-12)


def test_weighted_areas_equal_scikit_learn() -> None:
    from sklearn import metrics as sk

    rng = np.random.default_rng(4)
    scores, anomalous = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4
    weights = rng.random((60, 5))
    curves = score_curve(scores, weights, anomalous=anomalous)
    for column in range(5):
        args = {"y_true": anomalous, "y_score": scores, "sample_weight": weights[:, column]}
        assert IMAGE_METRICS["image_auroc"].statistic(curves)[column] == pytest.approx(
            sk.roc_auc_score(**args), abs=1e-9
        )
        assert IMAGE_METRICS["image_average_precision"].statistic(curves)[column] == pytest.approx(
            sk.average_precision_score(**args), abs=1e-9
        )


@pytest.mark.parametrize("distinct", [5, 1000])
def test_a_weighted_metric_is_what_each_threshold_by_itself_gives(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    scores, anomalous = rng.integers(0, distinct, 50).astype(float), rng.random(50) < 0.4
    weights = rng.standard_exponential((50, 7))
    curves = score_curve(scores, weights, anomalous=anomalous)
    values = {name: metric.statistic(curves) for name, metric in IMAGE_METRICS.items()}
    for column, weight in enumerate(weights.T):
        positives, negatives = weight[anomalous].sum(), weight[~anomalous].sum()
        points = [(0.0, 0.0)]
        for threshold in np.unique(scores)[::-1]:
            flagged = scores >= threshold
            points.append((weight[flagged & anomalous].sum(), weight[flagged & ~anomalous].sum()))
        hits, false_alarms = np.array(points).T
        expected = {
            "image_auroc": np.trapezoid(hits / positives, false_alarms / negatives),
            "image_average_precision": (np.diff(hits) * hits[1:] / (hits + false_alarms)[1:]).sum() / positives,
            "image_fpr_at_tpr95": min(false_alarms[hits >= 0.95 * positives]) / negatives,
            "image_sensitivity_at_specificity95": max(hits[false_alarms <= 0.05 * negatives]) / positives,
            "image_f1_max_oracle": (2 * hits / (positives + hits + false_alarms)).max(),
            "image_balanced_accuracy_max_oracle": ((hits / positives - false_alarms / negatives).max() + 1) / 2,
        }
        assert {name: of_metric[column] for name, of_metric in values.items()} == pytest.approx(expected, abs=1e-12)


def test_no_weighting_gives_no_value() -> None:
    """Where the groups allow no interval, there is none."""
    curves = score_curve(np.arange(4.0), np.ones((4, 0)), anomalous=np.arange(4) > 1)
    assert [metric.statistic(curves).shape for metric in IMAGE_METRICS.values()] == [(0,)] * len(IMAGE_METRICS)


def test_a_target_is_resampled_once_for_all_methods() -> None:
    groups, anomalous = np.arange(40) // 2, np.arange(40) >= 20
    first = resampling(groups, anomalous, replicates=50, seed=0)
    assert resampling(groups.copy(), anomalous.copy(), replicates=50, seed=0) is first
    assert resampling(groups, anomalous, replicates=50, seed=1) is not first
    assert not first.weights.flags.writeable
    assert first.left_out.shape == (40, 20)
    assert (first.left_out[groups == 3] == 0).sum() == 2


def test_images_of_a_group_are_weighted_together_and_classes_keep_their_numbers() -> None:
    groups = np.array([7, 7, 1, 2, 5, 5, 9, 11])
    anomalous = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
    weights = resampling(groups, anomalous, replicates=500, seed=0).weights
    assert (weights[0] == weights[1]).all()
    assert (weights[4] == weights[5]).all()
    of_classes = [weights[:4].sum(axis=0), weights[4:].sum(axis=0)]
    assert np.allclose(of_classes, 4)  # as many images of each class as there are


@pytest.mark.parametrize(
    ("groups", "anomalous"),
    [
        ([1, 2, 3, 3, 4, 5], [0, 1, 0, 1, 1, 1]),  # one normal, one mixed: they join
        ([1, 2, 3, 4, 4, 5, 5], [0, 0, 1, 0, 1, 0, 1]),  # one anomalous: joins the mixed
        ([1, 2, 3, 4, 5, 5], [0, 0, 1, 1, 0, 1]),  # one mixed: joins a pure stratum
    ],
)
def test_no_replicate_lacks_a_class(groups: Any, anomalous: Any) -> None:
    anomalous = np.array(anomalous, dtype=bool)
    weights = resampling(np.array(groups), anomalous, replicates=2000, seed=1).weights
    assert (weights[anomalous].sum(axis=0) > 0).all()
    assert (weights[~anomalous].sum(axis=0) > 0).all()


def test_the_interval_holds_the_estimate_and_repeats() -> None:
    scores, anomalous = detector(np.random.default_rng(0), draws=5, draw_sd=0.2, cell_sd=0.3)
    groups = np.arange(60)
    for metric in IMAGE_METRICS.values():
        table = replicate(scores, anomalous, groups, metric=metric, replicates=300)
        first = bootstrap_interval(scores, anomalous, groups, metric=metric, replicates=300)
        assert 0 <= first.low <= table.mean <= first.high <= 1
        assert first == bootstrap_interval(scores, anomalous, groups, metric=metric, replicates=300)


def test_a_higher_level_is_wider_and_more_groups_are_narrower() -> None:
    few, labels_few = detector(np.random.default_rng(1), each=20)
    many, labels_many = detector(np.random.default_rng(1), each=400)
    at_80, at_99 = (bootstrap_interval(few, labels_few, np.arange(40), level=level) for level in (0.8, 0.99))
    large = bootstrap_interval(many, labels_many, np.arange(800), level=0.8)
    assert at_99.high - at_99.low > at_80.high - at_80.low > 3 * (large.high - large.low)


def test_copies_of_images_do_not_narrow_the_interval() -> None:
    """The reason for resampling groups: 46 altered copies of an image are one observation."""
    scores, anomalous = detector(np.random.default_rng(2), each=25)
    once = bootstrap_interval(scores, anomalous, np.arange(50))
    copied = bootstrap_interval(np.tile(scores, 10), np.tile(anomalous, 10), np.tile(np.arange(50), 10))
    blind = bootstrap_interval(np.tile(scores, 10), np.tile(anomalous, 10), np.arange(500))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-6)
    assert blind.high - blind.low < 0.5 * (once.high - once.low)


def test_a_perfect_detector_of_few_images_has_an_interval_and_no_point() -> None:
    scores, anomalous = np.arange(20.0)[None], np.arange(20) >= 10
    interval = bootstrap_interval(scores, anomalous, np.arange(20))
    assert interval.high == 1
    assert 0.75 < interval.low < 0.95


def test_one_draw_agrees_with_delong_where_the_normal_holds() -> None:
    """Independent of the bootstrap: the variance of placements (DeLong et al. 1988)."""
    scores, anomalous = detector(np.random.default_rng(5), each=300)
    table = replicate(scores, anomalous, np.arange(600), replicates=4000)
    normal, abnormal = np.sort(scores[0][~anomalous]), np.sort(scores[0][anomalous])
    above = np.searchsorted(normal, abnormal) / len(normal)
    below = 1 - np.searchsorted(abnormal, normal) / len(abnormal)
    error = np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    interval = percentile_interval(table)
    assert (interval.high - interval.low) / (2 * 1.964) == pytest.approx(error, rel=0.06)


@pytest.mark.parametrize(
    ("scores", "anomalous", "groups", "message"),
    [
        ([[0.1, 0.2, 0.3, 0.4]], [0, 0, 0, 0], [1, 2, 3, 4], "hold normal and 0 anomalous"),
        ([[0.1, 0.2, 0.3, 0.4]], [0, 0, 0, 1], [1, 2, 3, 4], "needs two of each"),
        ([[0.1, 0.2, 0.3, np.nan]], [0, 0, 1, 1], [1, 2, 3, 4], "Score 3 is nan"),
        (np.zeros((0, 4)), [0, 0, 1, 1], [1, 2, 3, 4], "No support draw"),
    ],
)
def test_an_undefined_interval_is_an_error(scores: Any, anomalous: Any, groups: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        bootstrap_interval(np.array(scores), np.array(anomalous, dtype=bool), np.array(groups))


@pytest.mark.parametrize("case", [{"each": 60}, {"each": 80, "draws": 10, "cell_sd": 1.0, "image_sd": 0.0}])
def test_pure_noise_has_half_inside_in_92_to_98_percent_of_seeds(case: Any) -> None:
    """Also where every draw's noise is fresh, which a plain crossed bootstrap would count threefold."""
    inside = 0
    for seed in range(200):
        scores, anomalous = detector(np.random.default_rng([seed, 7]), shift=0.0, **case)
        interval = bootstrap_interval(scores, anomalous, np.arange(len(anomalous)), replicates=300, seed=seed)
        inside += interval.low <= 0.5 <= interval.high
    assert 0.92 <= inside / 200 <= 0.985
