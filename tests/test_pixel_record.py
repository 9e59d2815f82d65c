"""Pixel estimates as rows hold them: voxels and boxes, exact and streamed, with intervals."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tampering import altered, stating
from test_metrics_lesion import box_recall_by_hand, froc_by_hand, pointing_game_by_hand, sizes_by_hand
from test_runner import TOY, cell_of

from medfsad_bench.estimates.lesion import lesion_estimates
from medfsad_bench.estimates.pixel import measure_pixels, measure_streamed, pixel_estimates
from medfsad_bench.metrics.aupimo import aupimo_score, binned_aupimo
from medfsad_bench.metrics.lesion import FALSE_POSITIVES, measure_lesions, sensitivity_at_fp
from medfsad_bench.metrics.metric import AUPIMO
from medfsad_bench.metrics.score_histogram import pixel_histogram
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import Measurements, RunFolder
from medfsad_bench.runner.pixels import PixelTruth
from medfsad_bench.runner.runner import Runner


def scene(seed: int, *, images: int = 16, size_px: int = 48) -> Any:
    """Maps with noise, lesions of three sizes in every second image."""
    rng = np.random.default_rng(seed)
    maps, masks = rng.normal(size=(images, size_px, size_px)), np.zeros((images, size_px, size_px), dtype=bool)
    for index in range(0, images, 2):
        for edge in rng.choice([1, 3, 9], rng.integers(1, 4)):
            row, column = rng.integers(0, size_px - 9, 2)
            masks[index, row : row + edge, column : column + edge] = True
    return maps + 1.5 * masks, masks


@given(st.integers(0, 10**6))
def test_estimates_of_a_record_are_those_of_the_maps(seed: int) -> None:
    maps, masks = scene(seed)
    draw = measure_lesions(zip(maps, masks, strict=True))
    boxes, _, _ = lesion_estimates([draw], np.arange(16), boxes=True)
    voxels, by_size, _ = lesion_estimates([draw], np.arange(16), boxes=False)
    assert boxes["froc_mean6"].value == pytest.approx(froc_by_hand(maps, masks), abs=1e-12)
    assert boxes["pointing_game"].value == pytest.approx(pointing_game_by_hand(maps, masks), abs=1e-12)
    assert boxes["box_recall_image_fpr05"].value == pytest.approx(box_recall_by_hand(maps, masks), abs=1e-12)
    assert voxels["lesion_sensitivity_image_fpr05"].value == boxes["box_recall_image_fpr05"].value
    sizes = sizes_by_hand(masks)
    counts = {"below 0.1 %": 2.304, "0.1 to 1 %": 23.04, "from 1 %": np.inf}
    shares, low = [], 0.0
    for name, high in counts.items():
        inside = (sizes >= low) & (sizes < high)
        estimate = by_size.get(f"lesion_sensitivity_image_fpr05[lesion {name}]")
        assert (estimate is None) == (not inside.any())
        shares.append(estimate.value * inside.sum() if estimate else 0)
        low = high
    assert sum(shares) / len(sizes) == pytest.approx(voxels["lesion_sensitivity_image_fpr05"].value)
    for estimate in (*boxes.values(), *voxels.values(), *by_size.values()):
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.5, 2.0]))
def test_a_weight_of_an_image_is_its_repetition(seed: int, image_fpr: float) -> None:
    maps, masks = scene(seed, images=8)
    weights = np.random.default_rng(seed).integers(1, 4, 8)
    again = np.repeat(np.arange(8), weights)
    once = measure_lesions(zip(maps, masks, strict=True))
    repeated = measure_lesions(zip(maps[again], masks[again], strict=True))
    ones = np.ones((len(again), 1))
    for statistic in (
        partial(sensitivity_at_fp, by="detections", allowed=FALSE_POSITIVES),
        partial(sensitivity_at_fp, by="images", allowed=(image_fpr,)),
    ):
        weighted = statistic(once, weights[:, None])[0]
        assert weighted == pytest.approx(statistic(repeated, ones)[0], abs=1e-12)


def test_aupimo_from_a_fine_histogram_is_the_exact_one_also_under_weights() -> None:
    maps, masks = scene(1, size_px=96)
    bounds = (1e-3, 1e-1)
    weights = np.array([2, 1, 1, 3] * 4)
    again = np.repeat(np.arange(16), weights)
    histogram = pixel_histogram(maps, masks, bins=20000)
    for weight, chosen in ((np.ones(16), np.arange(16)), (weights, again)):
        expected = aupimo_score(maps[chosen], masks[chosen], fpr_bounds=bounds)
        assert binned_aupimo(histogram, weight[:, None], fpr_bounds=bounds)[0] == pytest.approx(expected, abs=2e-3)


def test_streamed_metrics_stand_with_their_error_beside_the_exact_ones() -> None:
    maps, masks = scene(2, size_px=64)
    maps = maps.astype(np.float32)
    exact, streamed = measure_pixels(maps, masks), measure_streamed(list(zip(maps, masks, strict=True)))
    assert not exact.errors
    groups = np.arange(16)
    estimates, _, none_absent = pixel_estimates([exact], groups)
    bounded, _, absent = pixel_estimates([streamed], groups)
    for name, error in streamed.errors.items():
        assert abs(estimates[name].value - bounded[name].value) <= error + 1e-9
        assert (estimates[name].error, bounded[name].error) == (None, error)
        assert bounded[name].low == pytest.approx(estimates[name].low, abs=0.03)
    assert AUPIMO.name in estimates
    assert not none_absent
    assert "streamed" in absent[AUPIMO.name]


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    maps, masks = scene(3)
    draws = [measure_pixels(maps, masks), measure_streamed(list(zip(maps, masks, strict=True)))]
    nothing = pd.DataFrame()
    RunFolder(tmp_path).write(Measurements(nothing, nothing, nothing, tuple(draws)), [])
    for draw, back in zip(draws, RunFolder(tmp_path).pixels(), strict=True):
        assert pixel_estimates([draw], np.arange(16)) == pixel_estimates([back], np.arange(16))


@pytest.fixture
def boxed_data(own_data: Path, tmp_path: Path) -> Path:
    """The same sets, with the masks of `ward_a` declared boxes."""
    shutil.copytree(own_data, tmp_path / "data")
    altered(tmp_path / "data" / "own" / "ward_a-0.0.0-64px.h5", stating(mask_kind="box"), sealed=True)
    return tmp_path / "data"


def test_boxes_have_what_boxes_support_and_nothing_finer(boxed_data: Path, tmp_path: Path) -> None:
    row, _ = Runner("cpu").run(cell_of(TOY, boxed_data, tmp_path / "runs"))
    assert {"pointing_game", "box_recall_image_fpr05", "froc_mean6"} <= set(row.metrics)
    assert not [name for name in row.metrics if name.startswith(("pixel_", "aupro", "aupimo", "dice"))]
    assert row.metrics["pointing_game"].value > 0.9, "a bright disc is where the map is highest"
    assert rescored(RunFolder(tmp_path / "runs" / row.run_id)) == row


def test_a_large_set_is_streamed_and_the_row_says_so(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, _ = Runner("cpu").run(cell_of(TOY, own_data, tmp_path / "exact"))
    monkeypatch.setattr("medfsad_bench.runner.pixels.STREAMED_FROM_PX", 1000)
    row, _ = Runner("cpu").run(cell_of(TOY, own_data, tmp_path / "streamed"))
    assert (exact.pixel_mode, row.pixel_mode) == ("exact", "streamed")
    for name in ("pixel_auroc", "pixel_average_precision", "aupro_fpr30_conn8", "dice_max_oracle"):
        estimate = row.metrics[name]
        assert estimate.error is not None
        assert abs(estimate.value - exact.metrics[name].value) <= estimate.error + 1e-9
    assert row.metrics["froc_mean6"] == exact.metrics["froc_mean6"]
    assert rescored(RunFolder(tmp_path / "streamed" / row.run_id)) == row


def test_lesion_shares_break_auroc_down(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path)
    row, _ = Runner("cpu").run(cell)
    rows = cell.target.indices("test")
    shares = PixelTruth(cell.target, rows).lesion_shares
    assert shares == pytest.approx([cell.target.mask(int(index)).mean() for index in rows])
    names = [name for name in row.secondary if name.startswith("image_auroc[lesion ")]
    assert names == ["image_auroc[lesion 1 to 5 %]"], "every disc has 253 of 7,680 pixels"
    assert row.secondary[names[0]] == row.metrics["image_auroc"]
