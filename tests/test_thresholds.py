"""Thresholds without anomalies: their level, what K permits, and the rates that follow."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.estimates.estimate import REPLICATES
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.estimates.thresholds import conformal_threshold, predictive_value, threshold_estimates
from medfsad_bench.metrics.resample import resampling


def run_of(rng: np.random.Generator, *, shots: int, draws: int = 6, sources: int = 3, each: int = 40) -> Any:
    """Scores of a run and the calibration beside it; all normals are alike, anomalous ones higher by 2."""
    anomalous = np.arange(2 * each) < each
    rows, lines = [], []
    for draw in range(draws):
        score = rng.normal(size=2 * each) + 2 * anomalous
        columns = {"index": np.arange(2 * each), "id": np.arange(2 * each).astype(str), "group": np.arange(2 * each)}
        rows.append(pd.DataFrame({"draw": draw, **columns, "anomalous": anomalous, "disease": "", "score": score}))
        left_out = rng.normal(size=shots)
        lines.append(pd.DataFrame({"set": "target", "draw": draw, "kind": "support", "score": left_out}))
    for number in range(sources):
        kinds = ["support"] * shots + ["normal"] * 12
        scale = 10.0**number  # other sets have other scales; only their shape is carried over
        score = scale * rng.normal(size=len(kinds)) + 5 * scale
        lines.append(pd.DataFrame({"set": f"source{number}", "draw": 0, "kind": kinds, "score": score}))
    return pd.concat(rows, ignore_index=True), pd.concat(lines, ignore_index=True)


def _estimates(scores: pd.DataFrame, calibration: pd.DataFrame) -> Any:
    matrix = score_matrix(scores)
    resampled = resampling(matrix.groups, matrix.anomalous, replicates=REPLICATES, seed=0)
    return threshold_estimates(matrix, calibration, resampled, target="target")


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_the_level_can_not_go_below_one_in_k_plus_one(count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=count)
    assert conformal_threshold(scores, level=1 / (count + 1)) == scores.max()
    assert conformal_threshold(scores, level=0.999 / (count + 1)) == np.inf


@pytest.mark.parametrize(("count", "level"), [(4, 0.2), (19, 0.05), (39, 0.05)])
def test_at_most_the_level_of_new_normals_is_flagged(count: int, level: float) -> None:
    """The conformal promise, by simulation: with the exact share ⌊level (n + 1)⌋ / (n + 1)."""
    rng = np.random.default_rng(count)
    flagged = [rng.normal() > conformal_threshold(rng.normal(size=count), level=level) for _ in range(20000)]
    assert np.mean(flagged) == pytest.approx(level, abs=0.007)


def test_an_operating_point_has_its_rates_with_intervals_and_says_how_it_was_set() -> None:
    scores, calibration = run_of(np.random.default_rng(0), shots=4)
    estimates, thresholds, _ = _estimates(scores, calibration)
    assert thresholds["support"].level == pytest.approx(0.2)
    assert thresholds["support"].images == 4
    assert thresholds["sources"].level == pytest.approx(0.05)
    assert thresholds["sources"].images == 36
    for name in ("operating_support", "operating_sources"):
        for kind in ("sensitivity", "specificity"):
            estimate = estimates[f"{name}_{kind}"]
            assert estimate.low is not None
            assert estimate.high is not None
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    by_hand = []
    for draw, part in scores.groupby("draw"):
        own = calibration[(calibration["set"] == "target") & (calibration["draw"] == draw)]
        normal = part[~part["anomalous"]]
        by_hand.append(float((normal["score"] <= own["score"].max()).mean()))
    assert estimates["operating_support_specificity"].value == pytest.approx(np.mean(by_hand))


def test_scores_on_another_scale_give_the_same_rates() -> None:
    scores, calibration = run_of(np.random.default_rng(1), shots=4)
    before = _estimates(scores, calibration)[0]
    stretched = [frame.assign(score=frame["score"] * 8 - 3) for frame in (scores, calibration)]
    after = _estimates(stretched[0], stretched[1])[0]
    assert {name: f.value for name, f in before.items()} == {name: f.value for name, f in after.items()}


def test_one_shot_and_too_few_sources_leave_the_estimates_out_with_the_reason() -> None:
    scores, calibration = run_of(np.random.default_rng(2), shots=1)
    estimates, _, absent = _estimates(scores, calibration)
    assert not estimates
    assert "two shots" in absent["operating_support"]
    scores, calibration = run_of(np.random.default_rng(2), shots=4, sources=1)
    estimates, _, absent = _estimates(scores, calibration)
    assert "operating_support_sensitivity" in estimates
    assert "12 normal images" in absent["operating_sources"]


def test_the_source_threshold_comes_near_its_level_where_sets_are_alike() -> None:
    """Six sets are six clusters of pivots, which is few for a quantile: somewhat more than 5 % is flagged."""
    rng = np.random.default_rng(3)
    specificity = []
    for _ in range(40):
        scores, calibration = run_of(rng, shots=4, sources=6, draws=3, each=30)
        estimates = _estimates(scores, calibration)[0]
        specificity.append(estimates["operating_sources_specificity"].value)
    assert 0.88 < np.mean(specificity) < 0.96


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.001, 0.999))
def test_predictive_values_are_bayes(sensitivity: float, specificity: float, prevalence: float) -> None:
    ppv, npv = predictive_value(sensitivity, specificity, prevalence)
    people = 1e6
    ill, well = people * prevalence, people * (1 - prevalence)
    assert ppv == pytest.approx(ill * sensitivity / (ill * sensitivity + well * (1 - specificity)))
    assert npv == pytest.approx(well * specificity / (well * specificity + ill * (1 - sensitivity)))


def test_a_predictive_value_of_nothing_flagged_is_absent_and_not_zero() -> None:
    assert predictive_value(0.0, 1.0, 0.1)[0] is None
    assert predictive_value(1.0, 0.0, 0.1)[1] is None
