"""Lesions, FROC, AUPIMO and boxes: hand-worked examples, slow references, anomalib, invariants."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics import froc
from medfsad_bench.metrics.aupimo import aupimo_score, aupimo_scores
from medfsad_bench.metrics.box import box_recall_score, pointing_game_score
from medfsad_bench.metrics.lesion import find_lesions, lesion_sensitivity_score, recall_by_size


def scene() -> Any:
    """Three images of 32²: a large and a small lesion, one missed lesion, none; peaks of known height."""
    maps, masks = np.zeros((3, 32, 32)), np.zeros((3, 32, 32), dtype=bool)
    masks[0, 4:10, 4:10], masks[0, 24:26, 24:26], masks[1, 10:13, 10:13] = True, True, True
    maps[0, 6, 6], maps[0, 24, 24] = 0.9, 0.6
    maps[1, 11, 11], maps[1, 28, 4] = 0.2, 0.7  # a false detection above
    maps[2, 16, 16] = 0.5
    return maps, masks


def test_lesions_have_their_size_image_and_peak() -> None:
    lesions = find_lesions(*scene())
    assert lesions.image.tolist() == [0, 0, 1]
    assert lesions.size_px.tolist() == [36, 4, 9]
    assert lesions.peak.tolist() == [0.9, 0.6, 0.2]


def test_sensitivity_counts_lesions_and_not_pixels() -> None:
    maps, masks = scene()
    assert lesion_sensitivity_score(maps, masks, threshold=0.6) == pytest.approx(2 / 3)
    groups = recall_by_size(find_lesions(maps, masks), threshold=0.6, edges_px=[5, 20, 100])
    assert [(g.low_px, g.high_px, g.lesions, g.recall) for g in groups] == [
        (0, 5, 1, 1.0),
        (5, 20, 1, 0.0),
        (20, 100, 1, 1.0),
        (100, None, 0, None),
    ]


def test_size_edges_have_to_rise() -> None:
    with pytest.raises(MetricError, match=r"\[5, 5\]"):
        recall_by_size(find_lesions(*scene()), threshold=0.5, edges_px=[5, 5])


def test_froc_of_a_hand_worked_scene() -> None:
    detections = froc.detect(*scene())
    assert detections.lesions.tolist() == [0.9, 0.6, 0.2]
    assert sorted(detections.false[detections.false > 0].tolist()) == [0.5, 0.7]
    at = {rate: froc.sensitivity_at_false_positives(detections, per_image=rate) for rate in (0.0, 1 / 3, 0.6, 2 / 3)}
    assert at == pytest.approx({0.0: 1 / 3, 1 / 3: 2 / 3, 0.6: 2 / 3, 2 / 3: 1.0})
    assert froc.froc_score(*scene()) == pytest.approx((1 / 3 + 2 / 3 + 4) / 6)


def test_a_constant_map_detects_nothing_in_small_lesions() -> None:
    """One plateau an image, mostly outside: every lesion is missed, at any rate."""
    _, masks = scene()
    assert froc.froc_score(np.zeros(masks.shape), masks) == 0


def test_a_plateau_is_one_detection() -> None:
    maps, masks = scene()
    maps[1, 27:30, 3:6] = 0.7
    assert (froc.detect(maps, masks).false == 0.7).sum() == 1


@given(st.integers(0, 10**6))
def test_froc_rises_with_the_false_detections_allowed_and_ignores_monotone_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, masks = rng.normal(size=(3, 24, 24)), rng.random((3, 24, 24)) < 0.03
    masks[0, 3, 3] = True
    detections = froc.detect(maps, masks)
    rates = [froc.sensitivity_at_false_positives(detections, per_image=rate) for rate in (0.0, 0.5, 1.0, 4.0, 50.0)]
    assert rates == sorted(rates)
    assert froc.froc_score(np.exp(maps), masks) == froc.froc_score(maps, masks)


@given(st.integers(0, 10**6))
def test_aupimo_equals_a_slow_reference(seed: int) -> None:
    """Recall at the best threshold for each of many rates, summed over the logarithm of the rate."""
    rng = np.random.default_rng(seed)
    maps, masks = rng.integers(0, 40, (4, 12, 12)).astype(float), np.zeros((4, 12, 12), dtype=bool)
    masks[0, :3, :3], masks[1, 5:7, 2:9] = True, True
    rates = np.geomspace(0.02, 0.5, 20001)
    rates = np.sqrt(rates[1:] * rates[:-1])
    thresholds = np.unique(maps)
    flagged = np.array([np.mean([(maps[k] >= t).mean() for k in (2, 3)]) for t in thresholds])
    expected = []
    for index in (0, 1):
        recall = np.array([(maps[index][masks[index]] >= t).mean() for t in thresholds])
        best = np.array([recall[flagged <= rate].max(initial=0) for rate in rates[::20]])
        expected.append(best.mean())
    scores = aupimo_scores(maps, masks, fpr_bounds=(0.02, 0.5))
    assert scores[:2] == pytest.approx(expected, abs=2e-3)
    assert np.isnan(scores[2:]).all()


def test_aupimo_equals_anomalib() -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("anomalib.metrics.pimo.pimo", reason="anomalib >= 2.3 is an oracle, not a dependency")
    rng = np.random.default_rng(0)
    maps, masks = rng.random((12, 128, 128)).astype(np.float32), np.zeros((12, 128, 128), dtype=bool)
    masks[:6, 20:60, 30:70] = True
    maps[masks] += 0.5
    metric = oracle._AUPIMO(num_thresholds=100_000, fpr_bounds=(1e-4, 1e-2), return_average=False)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
    _, result = metric.compute(force=True)
    expected = result.aupimos.numpy()
    assert aupimo_scores(maps, masks, fpr_bounds=(1e-4, 1e-2)) == pytest.approx(expected, abs=2e-3, nan_ok=True)


def test_aupimo_of_normal_images_with_different_sizes_weighs_images_the_same() -> None:
    maps = [np.array([[1.0, 0.0]]), np.array([[2.0] + [0.0] * 99]), np.array([[2.0, 0.0]])]
    masks = [np.array([[True, False]]), np.zeros((1, 100), dtype=bool), np.zeros((1, 2), dtype=bool)]
    rate = (0.01 + 0.5) / 2
    assert aupimo_score(maps, masks, fpr_bounds=(0.1, 1.0)) == pytest.approx(np.log(1 / rate) / np.log(10))


def test_the_pointing_game_shares_ties() -> None:
    maps = np.array([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]], [[0.0, 5.0, 0.0, 0.0]]])
    boxes = np.array([[[1, 0, 0, 0]], [[1, 0, 0, 0]], [[0, 0, 0, 0]]]) > 0
    assert pointing_game_score(maps, boxes) == pytest.approx((0.5 + 0.25) / 2)


def test_box_recall_lets_one_of_twenty_normal_images_alarm() -> None:
    maps = np.concatenate([np.arange(20.0).reshape(20, 1, 1), np.full((2, 1, 1), 18.5)])
    boxes = np.concatenate([np.zeros((20, 1, 1)), np.ones((2, 1, 1))]) > 0
    assert box_recall_score(maps, boxes) == 1.0
    assert box_recall_score(maps, boxes, image_fpr=0.04) == 0.0


@pytest.mark.parametrize("figure", [froc.froc_score, find_lesions, aupimo_score, pointing_game_score, box_recall_score])
def test_a_set_without_a_lesion_is_an_error(figure: Any) -> None:
    with pytest.raises(MetricError, match="leave"):
        figure(np.zeros((2, 300, 300)), np.zeros((2, 300, 300), dtype=bool))


def test_aupimo_names_what_too_few_pixels_can_not_show() -> None:
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0] = True
    with pytest.raises(MetricError, match=r"16 pixels, which can't show a false-positive rate of 0\.0001"):
        aupimo_score(np.zeros((2, 4, 4)), masks)


def test_box_recall_needs_images_without_a_box() -> None:
    with pytest.raises(MetricError, match="Every image has a box"):
        box_recall_score(np.zeros((1, 2, 2)), np.ones((1, 2, 2), dtype=bool))
