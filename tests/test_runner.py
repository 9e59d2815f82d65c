"""Runs: same seed, same bits; nothing is done twice; what breaks goes on where it was; no score depends on a label."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from tampering import altered

from medfsad_bench.errors import MethodError, StoreError, WeightsError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Backbone, Method, RunContext, Scorer, Scores
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.registry import method_info
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.plan import Cell, RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.weights import EMBEDDED
from medfsad_bench.store.prepared import own_sets, prepared_sets
from medfsad_bench.testing import phantom_images


@dataclass(frozen=True)
class ToyConfig:
    """Nothing to choose."""


class Toy(Method):
    """Distance to the mean support, as a map; counts what it is asked."""

    adapted = 0

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        Toy.adapted += 1
        mean = support.mean(0)
        return lambda images: Scores(pixel=(images - mean).abs().mean(1))


TOY = MethodInfo(
    name="toy",
    version="1",
    config=ToyConfig,
    build=Toy,
    summary="",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {}},
)


def cell_of(
    info: MethodInfo, data: Path, runs: Path, *, target: str = "ward_a", shots: int = 2, **options: object
) -> Cell:
    sets = prepared_sets(data)
    wanted = [dataset for dataset in sets if dataset.name == target]
    values = {"draws": 3, "preset": "quick", **options}
    return cells(info, wanted, sets, [shots], RunOptions(runs, **values))[0]  # type: ignore[arg-type]


def test_a_row_has_image_and_pixel_figures_with_intervals(own_data: Path, tmp_path: Path) -> None:
    row, there = Runner("cpu").run(cell_of(TOY, own_data, tmp_path))
    assert not there
    for name in ("image_auroc", "image_average_precision", "pixel_auroc", "aupro_fpr30_conn8"):
        figure = row.metrics[name]
        assert figure.low is not None
        assert figure.high is not None
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert row.metrics["image_auroc"].value > 0.8, "a bright disc is far from the mean support"
    assert (row.n_normal, row.n_anomalous, row.shots, row.draws) == (12, 10, 2, 3)
    assert set(row.secondary) >= {"image_auroc_pooled_mean", "image_auroc_pooled_top1"}


def test_without_masks_pixel_figures_are_absent_with_the_reason_and_never_zero(own_data: Path, tmp_path: Path) -> None:
    row, _ = Runner("cpu").run(cell_of(TOY, own_data, tmp_path, target="ward_b"))
    assert "pixel_auroc" not in row.metrics
    assert "mask_kind: none" in row.absent["pixel_auroc"]


def test_the_figures_are_those_of_the_stored_scores(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path)
    row, _ = Runner("cpu").run(cell)
    scores = RunFolder(tmp_path / cell.run_id).scores()
    by_hand = np.mean(
        [auroc_score(part["score"].to_numpy(), part["anomalous"].to_numpy(bool)) for _, part in scores.groupby("draw")]
    )
    assert row.metrics["image_auroc"].value == pytest.approx(by_hand, abs=1e-12)
    assert rescored(RunFolder(tmp_path / cell.run_id)) == row, "bit for bit"


def test_the_same_seed_gives_the_same_scores_bit_for_bit(own_data: Path, tmp_path: Path) -> None:
    """Trained, too: four steps of D²4FAD, twice, in two folders."""
    info = method_info("d24fad")
    scores = []
    for name in ("a", "b"):
        cell = cell_of(
            info, own_data, tmp_path / name, settings={"steps": 4, "size_px": 64, "batch_size": 4, "train_shots": 2}
        )
        Runner("cpu").run(cell)
        scores.append(RunFolder(tmp_path / name / cell.run_id).scores())
    pd.testing.assert_frame_equal(scores[0], scores[1], check_exact=True)
    other = cell_of(
        info, own_data, tmp_path / "c", seed=1, settings={"steps": 4, "size_px": 64, "batch_size": 4, "train_shots": 2}
    )
    Runner("cpu").run(other)
    assert not RunFolder(tmp_path / "c" / other.run_id).scores()["score"].equals(scores[0]["score"])


def test_a_finished_run_is_not_done_again(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path)
    first, _ = Runner("cpu").run(cell)
    before = Toy.adapted
    again, there = Runner("cpu").run(cell)
    assert there
    assert again == first
    assert Toy.adapted == before


def test_a_broken_run_goes_on_with_the_next_draw_and_ends_the_same(own_data: Path, tmp_path: Path) -> None:
    whole = cell_of(TOY, own_data, tmp_path / "whole")
    reference, _ = Runner("cpu").run(whole)
    cell = cell_of(TOY, own_data, tmp_path / "broken")
    calls = 0

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal calls
        calls += stage == "scoring"
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Runner("cpu", progress=stop).run(cell)
    assert not (tmp_path / "broken" / cell.run_id / "row.json").exists()
    row, _ = Runner("cpu").run(cell)
    events = [json.loads(line) for line in (tmp_path / "broken" / cell.run_id / "log.jsonl").read_text().splitlines()]
    drawn = [event["number"] for event in events if event["event"] == "draw"]
    assert drawn == [0, 1, 2], "the first of three draws was kept"
    assert row.metrics == reference.metrics


def test_training_that_was_interrupted_resumes_to_the_same_bits(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = method_info("d24fad")
    settings = {"steps": 9, "size_px": 64, "batch_size": 4, "train_shots": 2}  # three steps an epoch
    whole = cell_of(info, own_data, tmp_path / "whole", settings=settings)
    Runner("cpu").run(whole)
    cell = cell_of(info, own_data, tmp_path / "broken", settings=settings)

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "training" and "loss" in figures and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Runner("cpu", progress=stop).run(cell)
    record = json.loads((tmp_path / "broken" / "checkpoints" / cell.training_id / "training.json").read_text("utf-8"))
    assert not record["finished"]
    Runner("cpu").run(cell)
    pd.testing.assert_frame_equal(
        RunFolder(tmp_path / "whole" / whole.run_id).scores(),
        RunFolder(tmp_path / "broken" / cell.run_id).scores(),
        check_exact=True,
    )


def test_one_training_serves_every_k(own_data: Path, tmp_path: Path) -> None:
    info = method_info("d24fad")
    settings = {"steps": 2, "size_px": 64, "batch_size": 4, "train_shots": 2}
    two, four = (cell_of(info, own_data, tmp_path, shots=k, settings=settings) for k in (2, 4))
    assert two.training_id == four.training_id
    assert two.run_id != four.run_id
    Runner("cpu").run(two)
    row, _ = Runner("cpu").run(four)
    assert row.trained_shots == 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_a_checkpoint_that_saw_the_target_is_refused(own_data: Path, tmp_path: Path) -> None:
    info = method_info("d24fad")
    settings = {"steps": 1, "size_px": 64, "batch_size": 4, "train_shots": 2}
    cell = cell_of(info, own_data, tmp_path, settings=settings)  # trained on ward_b
    Runner("cpu").run(cell)
    file = next((tmp_path / "checkpoints" / cell.training_id).glob("*.safetensors"))
    seen = cell_of(info, own_data, tmp_path, target="ward_b", settings=settings, checkpoint=file)
    with pytest.raises(WeightsError, match="never saw it"):
        Runner("cpu").run(seen)


def test_scores_do_not_depend_on_labels(own_data: Path, tmp_path: Path) -> None:
    """The labels of the prepared file are swapped behind the runner's back: every score stays as it was."""
    cell = cell_of(TOY, own_data, tmp_path / "a")
    Runner("cpu").run(cell)
    data = tmp_path / "swapped" / "own"
    shutil.copytree(own_data / "own", data)

    def swap(file: h5py.File) -> None:
        test, label = file["table/split"].asstr()[:] == "test", file["table/label"][:]
        label[test] = 1 - label[test]
        file["table/label"][:] = label

    altered(data / "ward_a-0.0.0-64px.h5", swap, digests=True, sealed=True)
    swapped = cell_of(TOY, tmp_path / "swapped", tmp_path / "b")
    Runner("cpu").run(swapped)
    a = RunFolder(tmp_path / "a" / cell.run_id).scores()
    b = RunFolder(tmp_path / "b" / swapped.run_id).scores()
    np.testing.assert_array_equal(a["score"], b["score"])
    assert (a["anomalous"] != b["anomalous"]).all()


def test_a_score_that_is_not_finite_stops_the_run(own_data: Path, tmp_path: Path) -> None:
    class Broken(Toy):
        def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
            return lambda images: Scores(image=images.flatten(1).sum(1) / 0)

    import dataclasses

    with pytest.raises(MethodError, match="isn't finite"):
        Runner("cpu").run(cell_of(dataclasses.replace(TOY, build=Broken), own_data, tmp_path))


def test_too_few_groups_for_k_make_an_absent_cell_with_a_reason(own_data: Path, tmp_path: Path) -> None:
    assert "fewer than 13 shots" in cell_of(TOY, own_data, tmp_path, shots=13).absent


def test_an_own_folder_is_a_target_beside_a_benchmark(own_data: Path, tmp_path: Path) -> None:
    shutil.copytree(own_data / "own", tmp_path / "medfsad-x")
    shutil.copytree(own_data / "own", tmp_path / "own")
    assert {dataset.path.parent.name for dataset in prepared_sets(tmp_path)} == {"medfsad-x"}
    assert [dataset.name for dataset in own_sets(tmp_path)] == ["ward_a", "ward_b"]
    with pytest.raises(StoreError, match="Choose with --benchmark"):
        prepared_sets(tmp_path, "medfsad-y")


def test_the_backbone_sees_each_image_once_and_a_batch_does_not_move_a_bit() -> None:
    cache = FeatureCache(torch.device("cpu"))
    backbone = Backbone(EMBEDDED, (1, 2, 3, 4), 64)
    images = phantom_images(11)
    together = cache.features(backbone, images)
    assert cache.images_computed == 11
    cache.features(backbone, images.flip(0))
    assert cache.images_computed == 11
    alone = [FeatureCache(torch.device("cpu")).features(backbone, images[i : i + 1]) for i in (0, 10)]
    for stage, first, last in zip(together, *alone, strict=True):
        assert torch.equal(stage[:1], first)
        assert torch.equal(stage[10:], last)


def test_a_row_survives_its_file(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path)
    row, _ = Runner("cpu").run(cell)
    assert RunFolder(tmp_path / cell.run_id).row() == row


def test_no_support_is_left_out_where_a_method_needs_all_of_them(own_data: Path, tmp_path: Path) -> None:
    needs_two = dataclasses.replace(TOY, fewest_shots=2)
    row, _ = Runner("cpu").run(cell_of(needs_two, own_data, tmp_path, target="ward_b"))
    assert row.thresholds == {}
    assert cell_of(needs_two, own_data, tmp_path, shots=1).absent == "toy needs 2 shots or more"
    assert not cell_of(needs_two, own_data, tmp_path, shots=3).absent
