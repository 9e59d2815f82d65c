"""Listeners of a run, and what TensorBoard, MLflow and Weights & Biases are given: read back from their own files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Method
from medfsad_bench.registry import method_info
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.callbacks import RunCallback, Together
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.tracking import trackers

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Listening(RunCallback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def on_stage(self, cell: Cell, stage: str, steps: int) -> None:
        self.heard.append(("stage", stage))

    def on_epoch(self, cell: Cell, epoch: int, figures: Mapping[str, float]) -> None:
        self.heard.append(("epoch", epoch, *figures))

    def on_draw(self, cell: Cell, draw: int, auroc: float) -> None:
        self.heard.append(("draw", draw, auroc))

    def on_row(self, cell: Cell, row: Row) -> None:
        self.heard.append(("row", row.metrics["image_auroc"].value))


def test_a_run_tells_its_stages_epochs_draws_and_row(own_data: Path, tmp_path: Path) -> None:
    listening = Listening()
    settings = {"steps": 2, "backbone": "random:resnet18"}
    cell = cell_of(method_info("d24fad"), own_data, tmp_path, settings=settings)
    row, _ = Runner("cpu", callback=listening).run(cell)
    kinds = [heard[0] for heard in listening.heard]
    assert kinds == ["stage", "epoch", "stage", "draw", "draw", "draw", "row"]
    assert listening.heard[0] == ("stage", "training")
    assert listening.heard[1][:2] == ("epoch", 1)
    assert "loss" in listening.heard[1]
    aurocs = [heard[2] for heard in listening.heard if heard[0] == "draw"]
    assert sum(map(float, aurocs)) / 3 == pytest.approx(row.metrics["image_auroc"].value)  # type: ignore[arg-type]
    listening.heard.clear()
    Runner("cpu", callback=listening).run(cell)
    assert [heard[0] for heard in listening.heard] == ["row"]


def test_a_run_that_is_listened_to_is_the_same_run(own_data: Path, tmp_path: Path) -> None:
    rows = []
    for name, callback in (("silent", RunCallback()), ("heard", Together([Listening(), Listening()]))):
        cell = cell_of(TOY, own_data, tmp_path / name)
        Runner("cpu", callback=callback).run(cell)
        rows.append(RunFolder(tmp_path / name / cell.run_id).scores())
    assert rows[0].equals(rows[1])


def tracked(name: str, own_data: Path, runs: Path, *, times: int = 1) -> tuple[Path, Row]:
    for _ in range(times):
        row, _ = Runner("cpu", callback=trackers([name], runs)).run(cell_of(TOY, own_data, runs))
    return runs / "tracking" / name, row


def test_tensorboard_shows_draws_and_metrics(own_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, row = tracked("tensorboard", own_data, tmp_path)
    events = EventAccumulator(str(folder / row.run_id)).Reload()
    assert [event.step for event in events.Scalars("draws/image_auroc")] == [0, 1, 2]
    assert events.Scalars("image_auroc")[0].value == pytest.approx(row.metrics["image_auroc"].value)


def test_a_training_that_another_process_does_is_told_as_one_of_this_process_is(
    medfsad: Medfsad,  # noqa: F811
    own_data: Path,
) -> None:
    """TensorBoard and MLflow, whose files two processes write one after the other."""
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    settings = ("--set", "steps=2", "--set", "batch_size=4", "--set", "size_px=64", "--set", "train_shots=2")
    words = ("run", "d24fad", "--preset", "quick", "--data", own_data, "--shots", 2, "--draws", 2, *settings)
    code, _, err = medfsad(*words, "--jobs", 2, "--track", "tensorboard", "--track", "mlflow")
    assert code == 0, err
    tracking = Path("medfsad-runs/tracking").resolve()
    client = mlflow.MlflowClient(tracking_uri=(tracking / "mlflow").as_uri())
    (experiment,) = (each for each in client.search_experiments() if each.name == "medfsad/own")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "training/loss")) == 1
        folder = tracking / "tensorboard" / run.data.tags["run_id"]
        events = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload().GetAccumulator(".")
        assert [event.step for event in events.Scalars("training/loss")] == [1]
        assert [event.step for event in events.Scalars("draws/image_auroc")] == [0, 1]


def test_a_listener_hears_when_a_cell_is_left_though_it_fails(own_data: Path, tmp_path: Path) -> None:
    left = []

    class Leaving(RunCallback):
        def on_left(self, cell: Cell) -> None:
            left.append(cell.info.name)

    def refuses(_: object) -> Method:
        raise MethodError("Found nothing.")

    cell = cell_of(replace(TOY, build=refuses), own_data, tmp_path)
    with pytest.raises(MethodError, match="Found nothing"):
        Runner("cpu", callback=Together([Leaving()])).run(cell)
    assert left == ["toy"]


def test_mlflow_has_each_run_once_with_settings_and_metrics(own_data: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    folder, row = tracked("mlflow", own_data, tmp_path, times=2)
    client = mlflow.MlflowClient(tracking_uri=folder.as_uri())
    experiments = [each for each in client.search_experiments() if each.name == "medfsad/own"]
    (run,) = client.search_runs([each.experiment_id for each in experiments])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["image_auroc"] == row.metrics["image_auroc"].value
    assert run.data.params["method"] == "toy"
    assert run.data.tags["run_id"] == row.run_id
    draws = client.get_metric_history(run.info.run_id, "draws/image_auroc")
    assert [point.step for point in draws] == [0, 1, 2]


@pytest.mark.slow
def test_weights_and_biases_keeps_an_offline_run(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, row = tracked("wandb", own_data, tmp_path)
    wandb.teardown()  # as at the end of a process
    (file,) = folder.rglob("run-*.wandb")
    content = file.read_bytes()
    for part in (row.run_id, "draws/image_auroc", "aupro_fpr30_conn8", str(row.metrics["image_auroc"].value)):
        assert part.encode() in content


def test_a_program_that_is_not_there_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MethodError, match=r"medfsad\[mlflow\]"):
        trackers(["mlflow"], tmp_path)


def test_run_tracks_by_its_option(medfsad: Medfsad, own_data: Path) -> None:  # noqa: F811
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    words = ("run", "chance", "--data", own_data, "--target", "ward_b", "--shots", 2, "--draws", 2)
    code, _, err = medfsad(*words, "--track", "mlflow")
    assert code == 0, err
    assert list(Path("medfsad-runs/tracking/mlflow").rglob("image_auroc"))
    code, _, err = medfsad(*words, "--track", "mlflo")
    assert (code, "Did you mean 'mlflow'?" in err) == (2, True)
