"""The Python interface: its names, that it is lazy, and that it says what the command line says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import medfsad_bench as medfsad
from medfsad_bench.errors import DownloadError

NAMES = {
    *("Dataset", "Method", "MethodInfo", "Scores", "check_method"),
    *("compare", "leaderboard", "load", "prepare", "run", "score", "__version__"),
}


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert set(medfsad.__all__) == NAMES
    assert all(getattr(medfsad, name) for name in NAMES)
    assert medfsad.metrics.__name__ == "medfsad_bench.metrics"
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
        "must not be passed on",
    ):
        assert part in text
    assert dataset.images("test").shape == (len(dataset.indices("test")), 64, 64, 3)
    assert dataset.labels.sum() == 10
    assert len(dataset.groups) == len(dataset.to_pandas()) == len(dataset.table)


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
