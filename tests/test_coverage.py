"""Intervals hold the truth as often as they say: small simulations of what bench/coverage_intervals.py tabulates."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bench.coverage_intervals import CASES, Detector, coverage
from conftest import Silent, write_own_folder

from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.estimates.image import image_estimates, score_matrix
from medfsad_bench.metrics.resample import resampling
from medfsad_bench.registry import method_info
from medfsad_bench.results.tables import scores_table
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.plan import Cell, RunOptions
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.store import Dataset


@pytest.mark.slow
@pytest.mark.parametrize("detector", [Detector(draws=3), Detector(draws=1, draw_sd=0.0, per_group=2, group_sd=1.0)])
def test_95_percent_intervals_hold_the_truth_in_about_95_percent_at_200_groups(detector: Detector) -> None:
    """250 simulations tell 95 % from 89 % and 99 %."""
    shares = coverage(
        detector, 200, simulations=250, replicates=200, metrics=("image_auroc", "image_average_precision"), seed=1
    )
    assert all(0.90 <= share <= 0.985 for share in shares.values()), shares


@pytest.mark.slow
def test_few_groups_are_not_far_off() -> None:
    shares = coverage(CASES["one draw"], 30, simulations=300, replicates=200, metrics=("image_auroc",), seed=2)
    assert 0.90 <= shares["image_auroc"] <= 0.99, shares


@pytest.mark.slow
def test_chance_has_half_inside_its_interval_in_92_to_98_percent_of_seeds(
    tmp_path: Path,
) -> None:
    """The whole path but the file: a prepared set, the method, its draws, the row's estimate; 200 seeds."""
    write_own_folder(tmp_path / "raw" / "ward", seed=5, masks=False, normal=80, anomalous=40)
    prepare(tmp_path / "raw", PrepareOptions(tmp_path / "data", size_px=32), watcher=Silent())
    dataset = Dataset(next((tmp_path / "data").glob("*/*.h5")))
    info = method_info("chance")
    device, inside = torch.device("cpu"), []
    for seed in range(200):
        options = RunOptions(tmp_path, draws=3, seed=seed, batch_size=128)
        cell = Cell(info, info.config(), "", dataset, (), 4, options)
        with opened(cell, device, FeatureCache(device), lambda *_: None) as run:
            draws = [score_draw(run, draw) for draw in range(3)]
        scores = scores_table(dataset, cell.episodes.queries, draws)
        matrix = score_matrix(scores)
        resampled = resampling(matrix.groups, matrix.anomalous, replicates=200, seed=seed)
        estimate = image_estimates(matrix, resampled)[0]["image_auroc"]
        assert estimate.low is not None
        assert estimate.high is not None
        inside.append(estimate.low <= 0.5 <= estimate.high)
    assert 0.92 <= np.mean(inside) <= 0.98
