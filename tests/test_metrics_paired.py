"""Differences of two methods: DeLong against slow references and the bootstrap, p values, means, Holm, letters."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.delong import Measurement, delong, placements
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.metrics.interval import replicate, variance_of
from medfsad_bench.metrics.paired import (
    Difference,
    difference_of,
    holm,
    letters,
    mean_over_targets,
    paired_difference,
    separation,
)


def two_methods(seed: int, *, each: int = 60, draws: int = 4, gap: float = 0.3, draw_sd: float = 0.1) -> Any:
    """Scores of two methods that share most of each image's noise; the first is better by `gap`."""
    rng = np.random.default_rng(seed)
    anomalous = np.arange(2 * each) < each
    shared = rng.normal(size=2 * each)
    first, second = (shared + 0.5 * rng.normal(size=(draws, 2 * each)) for _ in range(2))
    first[:, anomalous] += 0.8 + gap + draw_sd * rng.normal(size=(draws, 1))
    second[:, anomalous] += 0.8
    return first, second, anomalous


def ends_of(difference: Difference) -> tuple[float, float, float]:
    """Low, high and p of a difference that has them."""
    assert difference.low is not None
    assert difference.high is not None
    assert difference.p is not None
    return difference.low, difference.high, difference.p


@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(3, 12))
def test_delong_equals_its_definition(seed: int, several: int, many: int) -> None:
    """Structural components by pairs, one image after the other."""
    rng = np.random.default_rng(seed)
    scores, anomalous = rng.integers(0, 6, several + many).astype(float), np.arange(several + many) < several
    measurement = delong(placements(scores[None], anomalous), anomalous, np.arange(len(scores)))
    psi = np.array([[(a > b) + 0.5 * (a == b) for b in scores[~anomalous]] for a in scores[anomalous]])
    variance = psi.mean(axis=1).var(ddof=1) / several + psi.mean(axis=0).var(ddof=1) / many
    assert measurement.value == pytest.approx(auroc_score(scores, anomalous), abs=1e-12)
    assert measurement.error == pytest.approx(np.sqrt(variance), abs=1e-12)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("draws", [1, 6])
def test_delong_and_the_bootstrap_agree(group: int, draws: int) -> None:
    """Two derivations of one standard error, over images and over groups, with one draw and several."""
    first, second, anomalous = two_methods(1, each=150, draws=draws)
    groups = np.arange(300) // group
    tables = [replicate(scores, anomalous, groups, replicates=3000) for scores in (first, second)]
    placed = [placements(scores, anomalous) for scores in (first, second)]
    for table, rows in zip(tables, placed, strict=True):
        assert delong(rows, anomalous, groups).error == pytest.approx(np.sqrt(variance_of(table)[0]), rel=0.07)
    paired = paired_difference(tables[0], tables[1])
    assert delong(placed[0] - placed[1], anomalous, groups).error == pytest.approx(paired.error, rel=0.07)
    assert delong(placed[0] - placed[1], anomalous, groups).value == pytest.approx(paired.value, abs=1e-12)


def test_copies_of_images_change_no_standard_error() -> None:
    first, _, anomalous = two_methods(2)
    once = delong(placements(first, anomalous), anomalous, np.arange(120))
    copied = np.tile(first, 5), np.tile(anomalous, 5), np.tile(np.arange(120), 5)
    again = delong(placements(copied[0], copied[1]), copied[1], copied[2])
    assert (again.value, again.error) == pytest.approx((once.value, once.error), abs=1e-12)


def test_a_class_of_one_group_has_no_variance() -> None:
    with pytest.raises(MetricError, match="1 groups hold anomalous"):
        delong(np.full((1, 4), 0.5), np.arange(4) < 2, np.array([0, 0, 1, 2]))


def test_pairing_finds_what_two_intervals_can_not() -> None:
    first, second, anomalous = two_methods(3, each=150, draws=10, gap=0.25, draw_sd=0.0)
    tables = [replicate(scores, anomalous, np.arange(300)) for scores in (first, second)]
    difference = paired_difference(tables[0], tables[1], pairs=150 * 150)
    alone = np.hypot(*(np.sqrt(variance_of(table)[0]) for table in tables))
    low, _, p = ends_of(difference)
    assert difference.error is not None
    assert difference.error < 0.5 * alone
    assert low > 0
    assert p < 0.01
    assert difference.effect is not None
    assert difference.effect > 0


def test_a_method_does_not_differ_from_itself() -> None:
    first, _, anomalous = two_methods(4)
    table = replicate(first, anomalous, np.arange(120), replicates=200)
    difference = paired_difference(table, table)
    assert (difference.value, difference.low, difference.high, difference.p, difference.effect) == (0, 0, 0, 1, 0)


def test_a_difference_turned_round_is_its_negative() -> None:
    first, second, anomalous = two_methods(5)
    tables = [replicate(scores, anomalous, np.arange(120), replicates=400) for scores in (first, second)]
    there, back = paired_difference(tables[0], tables[1]), paired_difference(tables[1], tables[0])
    (low, high, p), (back_low, back_high, back_p) = ends_of(there), ends_of(back)
    assert (there.value, low, high, p) == pytest.approx((-back.value, -back_high, -back_low, back_p))


def test_replicates_of_other_draws_are_refused() -> None:
    first, _, anomalous = two_methods(6)
    tables = [replicate(scores, anomalous, np.arange(120), replicates=50) for scores in (first, first[:2])]
    with pytest.raises(MetricError, match="same draws"):
        paired_difference(tables[0], tables[1])


@pytest.mark.slow
def test_p_values_of_equal_methods_are_uniform() -> None:
    """One in twenty below 0.05, for the bootstrap and for DeLong alike, with fresh noise in every draw."""
    below = np.zeros(2)
    for seed in range(400):
        first, second, anomalous = two_methods(seed + 100, each=50, gap=0.0, draw_sd=0.0)
        tables = [replicate(scores, anomalous, np.arange(100), replicates=300) for scores in (first, second)]
        placed = placements(first, anomalous) - placements(second, anomalous)
        by_delong = difference_of(delong(placed, anomalous, np.arange(100)))
        below += [ends_of(each)[2] < 0.05 for each in (paired_difference(tables[0], tables[1]), by_delong)]
    assert ((below / 400 > 0.025) & (below / 400 < 0.085)).all(), below / 400


def test_separation_is_cohens_d_of_normal_scores() -> None:
    rng = np.random.default_rng(7)
    scores = np.concatenate([rng.normal(1.3, 1, 20000), rng.normal(0, 1, 20000)])
    assert separation(auroc_score(scores, np.arange(40000) < 20000)) == pytest.approx(1.3, abs=0.03)
    assert np.isfinite(separation(1.0, pairs=100))


def test_a_mean_counts_every_target_the_same() -> None:
    """Worked by hand: differences 0.18 and 0.22 with standard errors 0.02 and 0.04."""
    mean = mean_over_targets([difference_of(Measurement(0.18, 0.02, 40)), difference_of(Measurement(0.22, 0.04, 40))])
    assert mean.these_targets.value == pytest.approx(0.2)
    assert mean.these_targets.error == pytest.approx(np.sqrt(0.02**2 + 0.04**2) / 2)
    assert mean.other_targets is not None
    assert mean.other_targets.error == pytest.approx(0.02)
    low, high, p = ends_of(mean.other_targets)  # the roots of (0.2 - d)² (1 - 0.2²) = (12.706 × 0.02)² (1 - d²)
    assert [(0.2 - d) ** 2 * 0.96 / (1 - d**2) for d in (low, high)] == pytest.approx(
        [(12.706 * 0.02) ** 2] * 2, rel=1e-3
    )
    assert p > 0.05 > 0.001 > ends_of(mean.these_targets)[2]


def test_one_target_says_nothing_of_others() -> None:
    only = difference_of(Measurement(0.1, 0.02, 40))
    assert mean_over_targets([only]).these_targets == only
    assert mean_over_targets([only]).other_targets is None


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=8))
def test_holm_is_between_the_p_values_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(len(p_values) * p, 1) + 1e-12
    order = np.argsort(p_values)
    assert np.diff(np.array(adjusted)[order]).min(initial=0) >= 0


@given(st.integers(1, 7), st.integers(0, 2**21 - 1))
def test_methods_share_a_letter_exactly_if_they_are_not_apart(count: int, bits: int) -> None:
    names = list("uvwxyzs"[:count])
    pairs = list(itertools.combinations(names, 2))
    apart = {pair: bool(bits >> bit & 1) for bit, pair in enumerate(pairs)}
    by_name = letters(names, apart)
    for (first, second), differ in apart.items():
        assert bool(set(by_name[first]) & set(by_name[second])) != differ
    assert all(by_name.values())
