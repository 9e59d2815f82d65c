"""Groups of unequal size: what they hide of a variance, weights that targets share, and differences within bounds."""

from typing import Any

import numpy as np
import pytest
from bench.paired_null import ALPHA, Methods, rejected
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.metrics.delong import Measurement, delong, placements
from medfsad_bench.metrics.group_sizes import GroupSizes, freedom_of
from medfsad_bench.metrics.interval import replicate, variance_of
from medfsad_bench.metrics.metric import METRICS
from medfsad_bench.metrics.paired import difference_of, mean_over_targets, paired_difference
from medfsad_bench.metrics.resample import group_keys, resampling

SIZES = st.lists(st.integers(1, 45), min_size=2, max_size=30).map(np.array)


@given(SIZES)
def test_bias_and_freedom_are_those_of_the_quadratic_form(images: Any) -> None:
    """Deviations are B e with B = diag(h) - h h', so the sum of squares is e'B'B e."""
    sizes = GroupSizes.of(images)
    form = np.diag(sizes.shares) - np.outer(sizes.shares, sizes.shares)
    squared = form.T @ form
    assert sizes.correction * np.trace(squared) == pytest.approx(sizes.variance)
    expected = np.trace(squared) ** 2 / np.trace(squared @ squared)
    assert freedom_of([sizes]) == pytest.approx(max(expected, 1), rel=1e-6)
    assert 1 <= freedom_of([sizes]) <= len(images) - 1 + 1e-6


@given(SIZES)
def test_the_jackknife_has_the_variance_of_a_mean_over_images(images: Any) -> None:
    """Each group's mean is one standard normal: the covariance of the moves by hand, one group left out at a time."""
    sizes, count = GroupSizes.of(images), len(images)
    without = np.array([np.where(np.arange(count) == left, 0, images) for left in range(count)], float)
    moves = without / without.sum(axis=1, keepdims=True) - sizes.shares
    assert sizes.left_out == pytest.approx((moves**2).sum())


@pytest.mark.parametrize("each", [8, 40])
def test_replicates_of_average_precision_vary_by_what_leaving_groups_out_shows(each: int) -> None:
    """Scikit-learn's, of the images that are left; every image is a group."""
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(each)
    anomalous = np.arange(2 * each) < each
    scores = rng.normal(size=(1, 2 * each)) + anomalous
    metric = METRICS["image_average_precision"]
    table = replicate(scores, anomalous, np.arange(2 * each), metric=metric, replicates=2000)
    jackknifed = 0.0
    for kind in (anomalous, ~anomalous):
        for left in np.flatnonzero(kind):
            weight = np.ones(2 * each)
            weight[left], weight[kind & (np.arange(2 * each) != left)] = 0, each / (each - 1)
            moved = average_precision_score(anomalous, scores[0], sample_weight=weight) - table.measured[0]
            jackknifed += (each - 1) / each * moved**2
    shown = float(table.resampled[:, 0].var())
    assert shown >= jackknifed * (1 - 1e-5)
    assert shown == pytest.approx(jackknifed, rel=1e-4)  # here the weights alone show less


def test_a_group_of_both_classes_counts_once() -> None:
    both = GroupSizes.of(np.ones(20))
    assert freedom_of([both, both]) == 19


def test_a_variance_over_unequal_groups_has_the_expectation_and_the_spread_that_are_said() -> None:
    """20,000 draws of the groups' means: the corrected sum of squares against the variance of their weighted mean."""
    sizes = GroupSizes.of(np.array([30, 25, 40, *[2] * 27]))
    means = np.random.default_rng(0).normal(size=(20_000, 30))
    weighted = means @ sizes.shares
    squares = sizes.correction * ((sizes.shares * (means - weighted[:, None])) ** 2).sum(axis=1)
    assert squares.mean() == pytest.approx(weighted.var(), rel=0.03)
    assert 2 * squares.mean() ** 2 / squares.var() == pytest.approx(freedom_of([sizes]), rel=0.06)
    assert freedom_of([sizes]) < 4  # of 30 groups


@pytest.mark.parametrize("images", [[3] * 40, [30, 25, 40, *[2] * 27]])
def test_stretched_replicates_vary_a_mean_as_new_groups_would(images: list[int]) -> None:
    """The normal images score 0, so AUROC is the share of anomalous ones above it: a mean over images."""
    groups = np.repeat(np.arange(len(images)), images)
    resampled = resampling(
        np.concatenate([groups, 1000 + groups]), np.arange(2 * len(groups)) < len(groups), replicates=4000, seed=0
    )
    weights = resampled.weights[: len(groups)].astype(float)
    means = np.random.default_rng(1).normal(size=(400, len(images)))
    replicated = means[:, groups] @ (weights / weights.sum(axis=0))
    shown = resampled.of_anomalous.stretch**2 * replicated.var(axis=1).mean()
    assert shown == pytest.approx(GroupSizes.of(np.array(images)).variance, rel=0.12)


def test_a_groups_weights_follow_from_its_name_and_no_other_group() -> None:
    """A group that alone holds both classes has no rule of its own; targets that share patients see them alike."""
    first, second = ["ann", "bob", "cid", "dee", "eve"], ["zoe", "bob", "ann", "cid", "ada"]
    ratios = []
    for names in (first, second):
        weights = resampling(group_keys(names), np.arange(5) < 3, replicates=300, seed=3).weights
        ratios.append(weights[names.index("bob")] / weights[names.index("ann")])
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)
    assert np.std(np.log(ratios[0])) > 1
    lone = np.array([0, 1, 2, 3, 4, 4])  # group 4 alone holds both classes
    weights = resampling(lone, np.array([0, 0, 1, 1, 0, 1], dtype=bool), replicates=300, seed=3).weights
    assert (weights > 0).all()


def test_targets_of_the_same_patients_count_once() -> None:
    """The same target twice tells no more than once; as strangers the two would seem to halve the variance."""
    rng = np.random.default_rng(8)
    anomalous, groups = np.arange(120) < 60, group_keys(f"p{number // 2}" for number in range(120))
    methods = [rng.normal(size=(3, 120)) + anomalous for _ in range(2)]
    tables = [replicate(scores, anomalous, groups, replicates=500) for scores in methods]
    placed = [placements(scores, anomalous) for scores in methods]
    by_delong = difference_of(delong(placed[0] - placed[1], anomalous, groups))
    for once in (paired_difference(*tables), by_delong):
        assert once.error is not None
        together = mean_over_targets([once, once], families=["eyes", "eyes"]).these_targets
        strangers = mean_over_targets([once, once]).these_targets
        of_groups = np.sqrt(float((once.measured.deviations**2).sum())) if once.measured else 0.0
        assert together.error == pytest.approx(np.sqrt((once.error**2 + of_groups**2) / 2), rel=1e-9)
        assert strangers.error == pytest.approx(once.error / np.sqrt(2))
        assert together.freedom == once.freedom


@given(
    st.sampled_from(sorted(METRICS)), st.floats(-1, 1), st.floats(0, 1), st.floats(1, 200), st.sampled_from([2, 9, 80])
)
def test_an_interval_of_a_difference_stays_within_what_differences_can_be(
    name: str, share: float, error: float, freedom: float, groups: int
) -> None:
    metric = METRICS[name]
    reach = metric.high - metric.low
    difference = difference_of(Measurement(share * reach, error * reach, freedom, groups), metric=metric)
    low, high, p = difference.low, difference.high, difference.p
    assert low is not None
    assert high is not None
    assert p is not None
    assert -reach <= low <= share * reach + 1e-9
    assert share * reach - 1e-9 <= high <= reach
    if abs(p - ALPHA) > 1e-6:
        assert (p < ALPHA) == (low > 0 or high < 0)


def test_a_perfect_difference_of_few_images_has_an_interval_and_no_point() -> None:
    """All found against none found, of 8 groups: Wilson's lower end of 16 of 16 on the scale from -1 to 1."""
    difference = difference_of(Measurement(1.0, 0.0, 1e9, 8))
    assert difference.high == 1
    assert difference.low == pytest.approx(2 / (1 + 1.96**2 / 16) - 1, abs=1e-4)


@pytest.mark.parametrize("targets", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_equal_methods_are_told_apart_in_one_of_twenty_however_unequal_the_groups(targets: int) -> None:
    """120 simulations tell 6 % from the 20 % that degrees of freedom by the number of groups give."""
    counted = [rejected(Methods(targets=targets), 30, seed=seed) for seed in range(120)]
    delong_share, _, letters_share = np.mean(counted, axis=0)
    assert delong_share <= 0.1
    assert letters_share <= 0.1


@pytest.mark.slow
def test_equal_methods_are_told_apart_in_one_of_twenty_by_the_bootstrap_too() -> None:
    counted = [rejected(Methods(count=2), 60, seed=seed, replicates=150) for seed in range(250)]
    assert np.mean(counted, axis=0)[1] <= 0.085


def test_bootstrap_and_delong_agree_for_unequal_groups() -> None:
    """Two derivations of one standard error, and of one number of degrees of freedom."""
    scores, anomalous, groups = Methods(count=1, draws=1).scores(np.random.default_rng(4), 160)
    table = replicate(scores[0], anomalous, groups, replicates=3000)
    by_delong = delong(placements(scores[0], anomalous), anomalous, groups)
    assert by_delong.error == pytest.approx(np.sqrt(variance_of(table)[0]), rel=0.1)
    assert by_delong.freedom == pytest.approx(table.freedom)
