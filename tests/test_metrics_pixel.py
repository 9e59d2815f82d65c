"""Pixel-level metrics against scikit-learn, anomalib, a slow reference, hand-worked examples and their invariants."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics import pixel
from medfsad_bench.metrics.ranks import pixel_ranks

METRICS: list[Callable[..., float]] = [
    pixel.pixel_auroc_score,
    pixel.pixel_average_precision_score,
    pixel.aupro_score,
    pixel.dice_max_score,
]


@st.composite
def labelled_maps(draw: Any) -> Any:
    """Small maps with many ties, and masks with several regions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    maps = rng.integers(0, draw(st.integers(1, 30)), shape).astype(draw(st.sampled_from([np.float32, np.float64])))
    masks = rng.random(shape) < draw(st.sampled_from([0.05, 0.2, 0.5]))
    masks[0, 0, 0], masks[0, -1, -1] = True, False
    return maps, masks


def aupro_by_hand(maps: Any, masks: Any, *, limit: float) -> float:
    """The curve, threshold by threshold, with the trapezoid, cut at the limit along its last segment."""
    from scipy.ndimage import label

    regions = []
    for index, mask in enumerate(masks):
        labels, count = label(mask, structure=np.ones((3, 3)))
        regions += [maps[index][labels == k] for k in range(1, count + 1)]
    normal = maps[~masks]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        points.append((float((normal >= threshold).mean()), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):  # noqa: RUF007 - reads like the curve
        end = min(x1, limit)
        if end > x0:
            at_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + at_end) / 2
    return area / limit


@given(labelled_maps())
def test_areas_equal_scikit_learn(case: Any) -> None:
    from sklearn import metrics as sk

    maps, masks = case
    precision, recall, _ = sk.precision_recall_curve(masks.ravel(), maps.ravel())
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert pixel.pixel_auroc_score(maps, masks) == pytest.approx(
        sk.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9
    )
    assert pixel.pixel_average_precision_score(maps, masks) == pytest.approx(
        sk.average_precision_score(masks.ravel(), maps.ravel()), abs=1e-9
    )
    assert pixel.dice_max_score(maps, masks) == pytest.approx(dice.max(), abs=1e-9)


@given(labelled_maps(), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_equals_a_slow_reference(case: Any, limit: float) -> None:
    maps, masks = case
    assert pixel.aupro_score(maps, masks, fpr_limit=limit) == pytest.approx(
        aupro_by_hand(maps, masks, limit=limit), abs=1e-12
    )


@pytest.mark.parametrize("limit", [0.3, 0.05])
def test_aupro_equals_anomalib(limit: float) -> None:
    torch = pytest.importorskip("torch")
    aupro = pytest.importorskip("anomalib.metrics.aupro", reason="anomalib >= 2.3 is an oracle, not a dependency")
    rng = np.random.default_rng(0)
    maps = rng.random((6, 64, 64)).astype(np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    for index, row, column, size in [(0, 5, 5, 9), (0, 40, 30, 4), (1, 20, 20, 20), (2, 0, 0, 3), (4, 50, 50, 13)]:
        masks[index, row : row + size, column : column + size] = True
    maps[masks] += 0.4
    oracle = aupro._AUPRO(fpr_limit=limit)
    oracle.update(torch.from_numpy(maps), torch.from_numpy(masks))
    assert pixel.aupro_score(maps, masks, fpr_limit=limit) == pytest.approx(float(oracle.compute()), abs=1e-4)


def test_aupro_of_a_hand_worked_example() -> None:
    """Two regions, one of one pixel found first, one of two pixels found at FPR 1/4 and never below the limit 1/2."""
    maps = np.array([[[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]]])
    masks = np.array([[[True, False, True, False, False, False, True]]])
    # pixel 0: 1; pixel 2 at 1/4: (1/2 - 1/4) / (1/2) = 1/2; pixel 6 at 1: 0; three regions of one pixel each
    assert pixel.aupro_score(maps, masks, fpr_limit=0.5) == pytest.approx((1 + 0.5 + 0) / 3)
    # the first two joined to one region: (1 + 1/2) / 2, which then counts as one of two
    joined = np.array([[[9.0, 7.0, 8.0, 6.0, 5.0, 4.0, 3.0]]])
    together = np.array([[[True, True, False, False, False, False, True]]])
    assert pixel.aupro_score(joined, together, fpr_limit=0.5) == pytest.approx((0.75 + 0) / 2)


def test_diagonal_neighbours_are_one_region() -> None:
    """Two pixels that touch at a corner count once; with 4-neighbourhood the metric would be (1 + 0 + 1) / 3."""
    maps = np.zeros((1, 4, 4))
    masks = np.zeros((1, 4, 4), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 3, 3] = True
    maps[0, 0, 0] = maps[0, 3, 3] = 2.0
    maps[0, 1, 1] = -1.0
    assert pixel.aupro_score(maps, masks) == pytest.approx((0.5 + 1.0) / 2)


def test_every_region_counts_the_same() -> None:
    """A missed pixel costs as much as a missed quarter of the image, unlike in AUROC."""
    maps = np.zeros((1, 16, 16))
    masks = np.zeros((1, 16, 16), dtype=bool)
    masks[0, :8, :8], masks[0, 12, 12] = True, True
    maps[0, :8, :8], maps[0, 12, 12] = 1.0, -1.0
    assert pixel.aupro_score(maps, masks) == pytest.approx(0.5)
    assert pixel.pixel_auroc_score(maps, masks) > 0.97


def test_masks_of_different_sizes_equal_one_array_of_the_same_pixels() -> None:
    rng = np.random.default_rng(1)
    maps, masks = rng.random((2, 6, 8)), rng.random((2, 6, 8)) < 0.3
    split_maps, split_masks = [maps[0], maps[1, :, :4], maps[1, :, 4:]], [masks[0], masks[1, :, :4], masks[1, :, 4:]]
    for metric in (pixel.pixel_auroc_score, pixel.pixel_average_precision_score, pixel.dice_max_score):
        assert metric(split_maps, split_masks) == metric(maps, masks)
    assert pixel.aupro_score(split_maps, split_masks) == pytest.approx(
        aupro_by_hand_of_split(split_maps, split_masks), abs=1e-12
    )


def aupro_by_hand_of_split(maps: Any, masks: Any) -> float:
    """The slow reference wants one size: pad with pixels of no class by repeating its sums over images instead."""
    height, width = max(m.shape[0] for m in maps), sum(m.shape[1] + 1 for m in maps)
    canvas, truth = np.full((1, height, width), np.nan), np.zeros((1, height, width), dtype=bool)
    left = 0
    for image, mask in zip(maps, masks, strict=True):
        canvas[0, :, left : left + image.shape[1]], truth[0, :, left : left + image.shape[1]] = image, mask
        left += image.shape[1] + 1
    real = canvas[~np.isnan(canvas)]
    gaps = np.isnan(canvas)
    canvas[gaps] = real.min() - 1  # never reached below the limit, and taken out of the rate
    share = (~truth & ~gaps).sum() / (~truth).sum()
    return aupro_by_hand(canvas, truth, limit=0.3 * share)


@given(labelled_maps())
def test_only_the_order_of_the_pixels_matters(case: Any) -> None:
    maps, masks = case
    for metric in METRICS:
        assert metric(maps * 4 - 9, masks) == metric(maps, masks)


@given(labelled_maps())
def test_the_order_of_the_images_does_not_matter(case: Any) -> None:
    maps, masks = case
    for metric in METRICS:
        assert metric(maps[::-1], masks[::-1]) == pytest.approx(metric(maps, masks), abs=1e-12)


@given(labelled_maps(), st.integers(2, 3))
def test_enlarged_images_have_the_same_metrics(case: Any, factor: int) -> None:
    """Scale of regions: every pixel drawn as a block; regions keep their connections and their weight."""
    maps, masks = case
    block = np.ones((1, factor, factor))
    for metric in METRICS:
        assert metric(np.kron(maps, block), np.kron(masks, block) > 0) == pytest.approx(metric(maps, masks), abs=1e-9)


@given(labelled_maps())
def test_flipped_masks_give_one_minus_auroc(case: Any) -> None:
    maps, masks = case
    assert pixel.pixel_auroc_score(maps, ~masks) == pytest.approx(1 - pixel.pixel_auroc_score(maps, masks), abs=1e-12)


@given(labelled_maps())
def test_auroc_of_a_union_lies_between_a_mixture_of_its_parts(case: Any) -> None:
    """Union bound: pooled pairs include the pairs within each image, the rest lies between 0 and 1."""
    maps, masks = case
    pairs = [float(mask.sum()) * float((~mask).sum()) for mask in masks]
    within = sum(
        weight * pixel.pixel_auroc_score([image], [mask])
        for image, mask, weight in zip(maps, masks, pairs, strict=True)
        if weight
    )
    total = float(masks.sum()) * float((~masks).sum())
    metric = pixel.pixel_auroc_score(maps, masks)
    assert within / total - 1e-12 <= metric <= (within + total - sum(pairs)) / total + 1e-12


@given(labelled_maps())
def test_every_metric_lies_between_0_and_1_and_a_perfect_map_has_1(case: Any) -> None:
    maps, masks = case
    assert all(0 <= metric(maps, masks) <= 1 for metric in METRICS)
    assert all(metric(masks.astype(np.float32), masks) == 1 for metric in METRICS)


@given(labelled_maps())
def test_all_metrics_at_once_equal_the_metrics_one_by_one(case: Any) -> None:
    maps, masks = case
    metrics = pixel.pixel_metrics(pixel_ranks(maps, masks))
    assert metrics == {
        "pixel_auroc": pixel.pixel_auroc_score(maps, masks),
        "pixel_average_precision": pixel.pixel_average_precision_score(maps, masks),
        "aupro_fpr30_conn8": pixel.aupro_score(maps, masks),
        "aupro_fpr05_conn8": pixel.aupro_score(maps, masks, fpr_limit=0.05),
        "dice_max_oracle": pixel.dice_max_score(maps, masks),
    }


def test_sorting_in_runs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    maps, masks = rng.integers(0, 50, (4, 30, 30)).astype(np.float32), rng.random((4, 30, 30)) < 0.02
    whole = pixel.pixel_metrics(pixel_ranks(maps, masks))
    monkeypatch.setattr("medfsad_bench.metrics.ranks._RUN", 7)
    assert pixel.pixel_metrics(pixel_ranks(maps, masks)) == whole


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2), dtype=bool), "no anomalous pixel"),
        (np.zeros((1, 2, 2)), np.ones((1, 2, 2), dtype=bool), "no normal pixel"),
        (np.full((1, 2, 2), np.nan), np.eye(2, dtype=bool)[None], "Map 0 holds a value that isn't finite"),
        ([np.zeros((2, 2))], [np.zeros((3, 2), dtype=bool)], r"Map 0 is \(2, 2\), its mask \(3, 2\)"),
        ([np.zeros((2, 2))], [], "1 maps came with 0 masks"),
    ],
)
def test_an_undefined_metric_is_an_error(metric: Callable[..., float], maps: Any, masks: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        metric(maps, masks)


def test_maps_are_not_modified() -> None:
    rng = np.random.default_rng(3)
    maps, masks = rng.random((2, 5, 5)), rng.random((2, 5, 5)) < 0.4
    before = maps.copy(), masks.copy()
    pixel.pixel_metrics(pixel_ranks(maps, masks))
    assert (maps == before[0]).all()
    assert (masks == before[1]).all()
