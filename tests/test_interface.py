"""The Python interface: its names, that it is lazy, and that it says what the command line says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

import medfsad_bench as medfsad
from medfsad_bench.episodes import Episodes
from medfsad_bench.errors import DownloadError, MethodError, StoreError
from medfsad_bench.metrics.metric import METRICS
from medfsad_bench.runner.callbacks import RunCallback

NAMES = {
    *("Dataset", "Method", "MethodInfo", "Scores", "check_method"),
    *("compare", "leaderboard", "load", "prepare", "run", "score", "__version__"),
}


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert set(medfsad.__all__) == NAMES
    assert all(getattr(medfsad, name) for name in NAMES)
    assert medfsad.metrics.__name__ == "medfsad_bench.metrics"
    assert set(medfsad.metrics.__all__) == {
        metric.score.__name__ for metric in METRICS.values() if hasattr(metric.score, "__name__")
    } | {"aupro_score"}
    assert all(callable(getattr(medfsad.metrics, name)) for name in medfsad.metrics.__all__)
    with pytest.raises(AttributeError, match="there are"):
        _ = medfsad.scroe


def test_importing_it_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, medfsad_bench; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_data_set_says_what_one_would_ask(own_data: Path) -> None:
    dataset = medfsad.load(own_data / "own" / "ward_a-0.0.0-64px.h5")
    text = repr(dataset)
    for part in (
        "own/ward_a",
        "64 px",
        "test anomalous 10 in",
        "support draws",
        "masks: voxel",
        "licence: ",
        "must not be passed on",
    ):
        assert part in text
    assert dataset.images("test").shape == (len(dataset.indices("test")), 64, 64, 3)
    assert dataset.labels.sum() == 10
    assert len(dataset.groups) == len(dataset.to_pandas()) == len(dataset.table)


def test_an_episode_is_what_a_run_shows(own_data: Path) -> None:
    dataset = medfsad.load(own_data / "own" / "ward_a-0.0.0-64px.h5")
    episode = dataset.episode(3, 4)
    runner = Episodes(dataset, 4)
    np.testing.assert_array_equal(episode.support, runner.support(3))
    np.testing.assert_array_equal(episode.queries, runner.queries)
    for draw, shots in ((64, 4), (-1, 4), (0, 0), (0, 100)):
        with pytest.raises(StoreError, match="Expected"):
            dataset.episode(draw, shots)
    with pytest.raises(StoreError, match="Expected train or test"):
        dataset.images("val")


@pytest.mark.slow
def test_run_keeps_features_and_shares_cells_out_as_the_command_line_does(own_data: Path, tmp_path: Path) -> None:
    def rows(folder: str, **options: object) -> pd.DataFrame:
        words = {"data": own_data, "runs": tmp_path / folder, "shots": 2, "target": "ward_b", "draws": 2}
        table = medfsad.run("mean_distance", preset="quick", device="cpu", **words, **options)  # type: ignore[arg-type]
        return table.drop(columns="path")

    alone = rows("alone", features="none")
    assert not list(tmp_path.rglob("*.arrow"))
    pd.testing.assert_frame_equal(rows("shared", features=tmp_path / "store", jobs=2), alone)
    assert list((tmp_path / "store").rglob("*.arrow"))
    assert len(list(tmp_path.glob("shared/.sweeps/*.json"))) == 1, "`medfsad status` tells of it"
    pd.testing.assert_frame_equal(rows("third", features=tmp_path / "store"), alone)


@pytest.mark.parametrize(("jobs", "callbacks"), [(0, []), (2, [RunCallback()])])
def test_jobs_that_cannot_be_are_told(jobs: int, callbacks: list[RunCallback], own_data: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=rf"jobs is {jobs}.*Expected at least one process, and no callbacks"):
        medfsad.run("chance", data=own_data, runs=tmp_path, jobs=jobs, callbacks=callbacks)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("workers", "start"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than a machine of one core has
def test_a_loader_gives_each_image_with_its_label(own_data: Path, workers: int, start: str | None) -> None:
    dataset = medfsad.load(own_data / "own" / "ward_a-0.0.0-64px.h5")
    images = dataset.to_torch("test")
    batches = list(DataLoader(images, batch_size=5, num_workers=workers, multiprocessing_context=start))
    shown = torch.cat([batch[0] for batch in batches])
    assert (shown.dtype, shown.shape) == (torch.float32, (22, 3, 64, 64))
    stored = torch.from_numpy(dataset.images("test")).permute(0, 3, 1, 2)
    assert torch.equal(shown, stored.float() / 255)
    assert torch.cat([batch[1] for batch in batches]).tolist() == dataset.labels[dataset.indices("test")].tolist()


def halved(image: torch.Tensor) -> torch.Tensor:
    return image[:, ::2, ::2]


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than a machine of one core has
def test_a_loader_gives_episodes_whose_queries_are_loaded_in_turn(own_data: Path) -> None:
    dataset = medfsad.load(own_data / "own" / "ward_a-0.0.0-64px.h5")
    episodes = dataset.to_torch(shots=2, transform=halved)
    loaded = list(DataLoader(episodes, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    assert [episode.draw for episode in loaded] == list(range(len(dataset.episodes)))
    assert loaded[1].support.shape == (2, 3, 32, 32)
    support = dataset.images(dataset.episode(1, 2).support)[:, ::2, ::2]
    np.testing.assert_array_equal((loaded[1].support * 255).round().permute(0, 2, 3, 1), support)
    images, labels = next(iter(DataLoader(loaded[1].queries, batch_size=22)))
    assert (images.shape, int(labels.sum())) == ((22, 3, 32, 32), 10)
    assert [episodes[draw].draw for draw in range(2)] == [0, 1]
    with pytest.raises(StoreError, match="shots"):
        dataset.to_torch(shots=500)


def test_runs_are_rows_and_the_leaderboard_holds_them(own_data: Path, tmp_path: Path) -> None:
    rows = medfsad.run("chance", data=own_data, runs=tmp_path, target="ward_b", shots=2, draws=2, device="cpu")
    board = medfsad.leaderboard(tmp_path)
    assert rows["image_auroc"].tolist() == board["image_auroc"].tolist()
    assert (rows["method"].item(), rows["shots"].item()) == ("chance", 2)
    folder = tmp_path / rows["run_id"].item()
    assert medfsad.compare(folder, folder).targets[0].differences["image_auroc"].value == 0


def test_arrays_tensors_and_floats_get_the_same_scores() -> None:
    normal = np.random.default_rng(0).integers(90, 110, (4, 40, 40), dtype=np.uint8)
    new = np.random.default_rng(1).integers(90, 110, (3, 40, 40), dtype=np.uint8)
    tensors = torch.from_numpy(new)[:, None].expand(-1, 3, -1, -1).float() / 255
    results = [
        medfsad.score("pixel_distance", normal, form, size=32, device="cpu")
        for form in (new, list(new), tensors, new.astype(np.float64) / 255)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.table["score"], results[0].table["score"])
    assert results[0].maps is not None
    assert results[0].maps.shape == (3, 32, 32)


@pytest.mark.parametrize(
    "wrong",
    [np.full((2, 8, 8), 300.0), np.zeros((2, 8, 8, 5), np.uint8), [], None],
    ids=["beyond 1", "five channels", "empty", "none"],
)
def test_what_is_no_image_is_refused(wrong: object) -> None:
    with pytest.raises(DownloadError, match="Expected"):
        medfsad.score("pixel_distance", np.zeros((4, 8, 8), np.uint8), wrong, device="cpu")
