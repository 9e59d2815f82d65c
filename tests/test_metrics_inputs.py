"""Labels and scores of any type give the metrics of booleans and doubles, or are refused."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score as sklearn_average_precision
from sklearn.metrics import roc_auc_score

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.aupimo import aupimo_score
from medfsad_bench.metrics.delong import placements
from medfsad_bench.metrics.image import auroc_score, average_precision_score, f1_max_score
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.lesion import froc_score, lesion_sensitivity_score, pointing_game_score
from medfsad_bench.metrics.metric import IMAGE_METRICS
from medfsad_bench.metrics.pixel import aupro_score, pixel_auroc_score, pixel_average_precision_score

LABELS = (bool, np.int8, np.uint8, np.int32, np.int64, np.uint64)
SCORES = (np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float32, np.float64)


def detector(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Whole scores from 0 to 255, which every type holds, and booleans."""
    rng = np.random.default_rng(5)
    labels = rng.random(count) < 0.4
    return np.clip(rng.normal(120, 40, count) + 50 * labels, 0, 255).round(), labels


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Maps of whole scores and masks of six images, four of them with a lesion."""
    rng = np.random.default_rng(6)
    masks = np.zeros((6, 40, 40), bool)
    for number in range(4):
        masks[number, 5 + number : 15, 8:20] = True
    return np.clip(rng.normal(90, 30, masks.shape) + 70 * masks, 0, 255).round(), masks


@pytest.mark.parametrize("label_type", LABELS)
@pytest.mark.parametrize("score_type", SCORES)
def test_image_metrics_are_those_of_doubles_and_booleans(label_type: type, score_type: type) -> None:
    scores, labels = detector()
    given: tuple[np.ndarray, np.ndarray] = scores.astype(score_type), labels.astype(label_type)
    assert auroc_score(*given) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision_score(*given) == pytest.approx(sklearn_average_precision(labels, scores), abs=1e-12)
    for metric in IMAGE_METRICS.values():
        assert metric.score(*given) == metric.score(scores, labels), metric.name


@pytest.mark.parametrize("label_type", LABELS)
@pytest.mark.parametrize("score_type", SCORES)
def test_pixel_and_lesion_metrics_are_those_of_doubles_and_booleans(label_type: type, score_type: type) -> None:
    maps, masks = scene()
    given: tuple[np.ndarray, np.ndarray] = maps.astype(score_type), masks.astype(label_type)
    assert pixel_auroc_score(*given) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    for score in (
        pixel_average_precision_score,
        aupro_score,
        froc_score,
        lesion_sensitivity_score,
        pointing_game_score,
    ):
        assert score(*given) == pytest.approx(score(maps, masks), abs=1e-12), score.__name__
    bounds = (1e-3, 1e-1)
    assert aupimo_score(*given, fpr_bounds=bounds) == pytest.approx(aupimo_score(maps, masks, fpr_bounds=bounds))


def test_intervals_and_placements_take_integer_labels_too() -> None:
    scores, labels = detector(120)
    groups = np.arange(120)
    tables = [replicate(scores[None], given, groups, replicates=50) for given in (labels, labels.astype(np.uint8))]
    assert np.array_equal(tables[0].resampled, tables[1].resampled)
    placed = [placements(given[None], labels) for given in (scores, scores.astype(np.uint8))]
    assert np.array_equal(placed[0], placed[1])


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, 1, 1], [0, 255, 255]])
def test_labels_that_are_neither_0_nor_1_are_refused(labels: list[int]) -> None:
    with pytest.raises(MetricError, match="expected 0 for normal and 1 for anomalous"):
        f1_max_score(np.arange(3.0), np.array(labels))
    with pytest.raises(MetricError, match="expected 0 for normal and 1 for anomalous"):
        pixel_auroc_score(np.arange(3.0)[None, None], np.array(labels)[None, None])
