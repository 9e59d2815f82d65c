"""Lesions, FROC, AUPIMO and boxes: hand-worked examples, slow references, anomalib, invariants."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.aupimo import aupimo_score, aupimo_scores
from medfsad_bench.metrics.detections import detections_of
from medfsad_bench.metrics.lesion import froc_score, lesion_sensitivity_score, measure_lesions, pointing_game_score


def scene() -> Any:
    """Three images of 32²: a large and a small lesion, one missed lesion, none; peaks of known height."""
    maps, masks = np.zeros((3, 32, 32)), np.zeros((3, 32, 32), dtype=bool)
    masks[0, 4:10, 4:10], masks[0, 24:26, 24:26], masks[1, 10:13, 10:13] = True, True, True
    maps[0, 6, 6], maps[0, 24, 24] = 0.9, 0.6
    maps[1, 11, 11], maps[1, 28, 4] = 0.2, 0.7  # a false detection above
    maps[2, 16, 16] = 0.5
    return maps, masks


def detections_by_hand(maps: Any, masks: Any, separation: float = 1 / 16) -> tuple[list[float], list[float]]:
    """Score of every lesion's highest detection, and those of false detections; one peak after the other."""
    from scipy.ndimage import label, maximum_filter

    eight, lesion_scores, false = np.ones((3, 3)), [], []
    for image, mask in zip(maps, masks, strict=True):
        reach = max(round(separation * min(image.shape)), 1)
        peaks, count = label(image == maximum_filter(image, 2 * reach + 1, mode="nearest"), structure=eight)
        lesions, lesion_count = label(mask, structure=eight)
        best = [-np.inf] * (lesion_count + 1)
        for peak in range(1, count + 1):
            here, score = lesions[peaks == peak], float(image[peaks == peak][0])
            hits = [lesion for lesion in range(1, lesion_count + 1) if 2 * (here == lesion).sum() > len(here)]
            for lesion in hits:
                best[lesion] = max(best[lesion], score)
            false += [] if hits else [score]
        lesion_scores += best[1:]
    return lesion_scores, false


def sensitivity_by_hand(maps: Any, masks: Any, *, per_image: float) -> float:
    """At the lowest threshold with at most `per_image` false detections per image."""
    lesion_scores, false = detections_by_hand(maps, masks)
    allowed = [t for t in lesion_scores if np.isfinite(t) and sum(f >= t for f in false) <= per_image * len(maps)]
    return float(np.mean([score >= min(allowed) for score in lesion_scores])) if allowed else 0.0


def froc_by_hand(maps: Any, masks: Any) -> float:
    return float(np.mean([sensitivity_by_hand(maps, masks, per_image=rate) for rate in (0.25, 0.5, 1, 2, 4, 8)]))


def lesions_by_hand(maps: Any, masks: Any) -> tuple[Any, Any]:
    """Size and highest score of every lesion."""
    from scipy.ndimage import label

    parts = []
    for image, mask in zip(maps, masks, strict=True):
        labels, count = label(mask, structure=np.ones((3, 3)))
        parts += [image[labels == number] for number in range(1, count + 1)]
    return np.array([len(part) for part in parts]), np.array([part.max() for part in parts])


def sizes_by_hand(masks: Any) -> Any:
    return lesions_by_hand(masks, masks)[0]


def box_recall_by_hand(maps: Any, boxes: Any, *, image_fpr: float = 0.05) -> float:
    """At the threshold that one clean image more than allowed reaches."""
    clean = sorted((float(image.max()) for image, box in zip(maps, boxes, strict=True) if not box.any()), reverse=True)
    allowed = int(image_fpr * len(clean) + 1e-9)
    return float(np.mean(lesions_by_hand(maps, boxes)[1] > clean[allowed])) if allowed < len(clean) else 1.0


def pointing_game_by_hand(maps: Any, boxes: Any) -> float:
    hits = [float(box[image == image.max()].mean()) for image, box in zip(maps, boxes, strict=True) if box.any()]
    return float(np.mean(hits))


def test_lesions_have_their_size_image_and_peak() -> None:
    maps, masks = scene()
    record = measure_lesions(zip(maps, masks, strict=True))
    assert record.lesion_image.tolist() == [0, 0, 1]
    assert (record.lesion_share * 32**2).tolist() == [36, 4, 9]
    assert record.lesion_peak.tolist() == [0.9, 0.6, 0.2]
    assert record.lesion_detection.tolist() == [0.9, 0.6, 0.2]
    assert sorted(record.false_score[record.false_score > 0].tolist()) == [0.5, 0.7]


def test_sensitivity_counts_lesions_and_not_pixels() -> None:
    """The only image without a lesion reaches 0.5: two of three lesions lie above, and all where it may alarm."""
    assert lesion_sensitivity_score(*scene()) == pytest.approx(2 / 3)
    assert lesion_sensitivity_score(*scene(), image_fpr=1.0) == 1.0


def test_froc_of_a_hand_worked_scene() -> None:
    at = {rate: sensitivity_by_hand(*scene(), per_image=rate) for rate in (0.0, 1 / 3, 0.6, 2 / 3)}
    assert at == pytest.approx({0.0: 1 / 3, 1 / 3: 2 / 3, 0.6: 2 / 3, 2 / 3: 1.0})
    assert froc_score(*scene()) == pytest.approx((1 / 3 + 2 / 3 + 4) / 6)


def test_a_constant_map_detects_nothing_in_small_lesions() -> None:
    """One plateau per image, mostly outside: every lesion is missed, at any rate."""
    _, masks = scene()
    assert froc_score(np.zeros(masks.shape), masks) == 0


def test_a_plateau_is_one_detection() -> None:
    maps, masks = scene()
    maps[1, 27:30, 3:6] = 0.7
    assert (detections_of(maps[1], masks[1])[1] == 0.7).sum() == 1


@given(st.integers(0, 10**6))
def test_froc_equals_a_slow_reference_and_ignores_monotone_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps, masks = rng.normal(size=(3, 24, 24)), rng.random((3, 24, 24)) < 0.03
    masks[0, 3, 3] = True
    rates = [sensitivity_by_hand(maps, masks, per_image=rate) for rate in (0.0, 0.5, 1.0, 4.0, 50.0)]
    assert rates == sorted(rates)
    assert froc_score(maps, masks) == pytest.approx(froc_by_hand(maps, masks), abs=1e-12)
    assert froc_score(np.exp(maps), masks) == froc_score(maps, masks)


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
    assert lesion_sensitivity_score(maps, boxes) == 1.0
    assert lesion_sensitivity_score(maps, boxes, image_fpr=0.04) == 0.0


@pytest.mark.parametrize("score", [froc_score, aupimo_score, pointing_game_score, lesion_sensitivity_score])
def test_a_set_without_a_lesion_is_an_error(score: Any) -> None:
    with pytest.raises(MetricError, match="leave"):
        score(np.zeros((2, 300, 300)), np.zeros((2, 300, 300), dtype=bool))


def test_aupimo_names_what_too_few_pixels_can_not_show() -> None:
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0] = True
    with pytest.raises(MetricError, match=r"16 pixels, which can't show a false-positive rate of 0\.0001"):
        aupimo_score(np.zeros((2, 4, 4)), masks)


def test_box_recall_needs_images_without_a_box() -> None:
    with pytest.raises(MetricError, match="Every image has a lesion"):
        lesion_sensitivity_score(np.zeros((1, 2, 2)), np.ones((1, 2, 2), dtype=bool))
