"""Runs as TensorBoard, MLflow and Weights & Biases show them: local files alone, no network.

    <runs>/tracking/tensorboard/<run id>/    event files: `tensorboard --logdir <runs>/tracking/tensorboard`
                    mlflow/                  a file store: `mlflow ui --backend-store-uri <runs>/tracking/mlflow`
                    wandb/                   offline runs: `wandb sync <runs>/tracking/wandb/wandb/offline-run-*`

Whether anything is sent anywhere later is the user's own step.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from medfsad_bench.errors import MethodError, nearest
from medfsad_bench.files import write_advice
from medfsad_bench.results.row import Row
from medfsad_bench.runner.callbacks import RunCallback, Together
from medfsad_bench.runner.plan import Cell

_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}
_TRAINING, _DRAW = "training/", "draws/image_auroc"


def trackers(names: Sequence[str], runs: Path) -> RunCallback:
    """Listeners that write what these programs show.

    Args:
        names: Which ones.
        runs: Folder of runs; files go to `tracking/` in it.

    Raises:
        MethodError: If a name is unknown, a program's package isn't installed, or the folder can't be written.
    """
    made: list[RunCallback] = []
    kinds: Mapping[str, Callable[[Path], RunCallback]] = {
        "tensorboard": TensorBoard,
        "mlflow": MLflow,
        "wandb": WeightsAndBiases,
    }
    for name in dict.fromkeys(names):
        if name not in kinds:
            raise MethodError(f"--track {name!r} is unknown.{nearest(name, kinds)} Expected {', '.join(kinds)}.")
        if importlib.util.find_spec(name) is None:
            raise MethodError(
                f"--track {name} takes the package {_PACKAGES[name]}, which isn't installed. Run "
                f"pip install 'medfsad[{name}]', or leave --track out: a run keeps a log of its own anyway."
            )
        folder = (runs / "tracking" / name).resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MethodError(
                f"--track {name}: {folder} can't be made ({error.strerror}). {write_advice(error, '--runs')}"
            ) from error
        made.append(kinds[name](folder))
    return Together(made)


class TensorBoard(RunCallback):
    """Event files, one folder per run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def on_epoch(self, cell: Cell, epoch: int, figures: Mapping[str, float]) -> None:
        """Each figure is a curve over epochs."""
        for name, value in figures.items():
            self._writer(cell.run_id).add_scalar(f"{_TRAINING}{name}", value, epoch)

    def on_draw(self, cell: Cell, draw: int, auroc: float) -> None:
        """AUROC is a curve over draws."""
        self._writer(cell.run_id).add_scalar(_DRAW, auroc, draw)

    def on_row(self, cell: Cell, row: Row) -> None:
        """Metrics are scalars, settings a text; the run's files are closed."""
        writer = self._writer(cell.run_id)
        for name, value in _metrics(row).items():
            writer.add_scalar(name, value)
        writer.add_text("settings", "\n".join(f"    {name} = {value}" for name, value in _settings(row).items()))
        self.on_left(cell)

    def on_left(self, cell: Cell) -> None:
        """What was told of the cell so far is written out."""
        if writer := self._writers.pop(cell.run_id, None):
            writer.close()

    def _writer(self, run_id: str) -> Any:
        if run_id not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[run_id] = SummaryWriter(str(self._folder / run_id))
        return self._writers[run_id]


class MLflow(RunCallback):
    """A local file store; one experiment per benchmark, one run per cell, never twice."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for a database unless told
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=folder.as_uri())
        self._lock = folder.with_suffix(".lock")
        self._runs: dict[str, str] = {}

    def on_epoch(self, cell: Cell, epoch: int, figures: Mapping[str, float]) -> None:
        """Each figure is a metric over epochs."""
        for name, value in figures.items():
            self._client.log_metric(self._run(cell), f"{_TRAINING}{name}", value, step=epoch)

    def on_draw(self, cell: Cell, draw: int, auroc: float) -> None:
        """AUROC is a metric over draws."""
        self._client.log_metric(self._run(cell), _DRAW, auroc, step=draw)

    def on_row(self, cell: Cell, row: Row) -> None:
        """Settings are parameters, estimates metrics, checks tags."""
        run = self._run(cell)
        if self._client.get_run(run).info.status == "FINISHED":
            return  # by an earlier command
        for name, text in _settings(row).items():
            self._client.log_param(run, name, text)
        for name, value in _metrics(row).items():
            self._client.log_metric(run, name, value)
        self._client.set_tag(run, "ranks", str(row.ranks).lower())
        self._client.set_tag(run, "failed_checks", "; ".join(row.failed_checks) or "none")
        self._client.set_terminated(run)

    def _run(self, cell: Cell) -> str:
        """MLflow's id of a cell's run, begun or taken up."""
        if cell.run_id not in self._runs:
            name = f"medfsad/{cell.benchmark}"
            with FileLock(self._lock):  # several processes may begin their first run at the same time
                experiment = self._client.get_experiment_by_name(name)
                number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            before = self._client.search_runs([number], f"tags.run_id = '{cell.run_id}'")
            tags = {"run_id": cell.run_id, "method": cell.info.name, "target": cell.target.name}
            run = before[0] if before else self._client.create_run(number, run_name=cell.run_id, tags=tags)
            self._runs[cell.run_id] = run.info.run_id
        return self._runs[cell.run_id]


class WeightsAndBiases(RunCallback):
    """Offline runs, which `wandb sync` may send later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run: Any = None

    def on_epoch(self, cell: Cell, epoch: int, figures: Mapping[str, float]) -> None:
        """Figures by epoch."""
        self._of(cell).log({"epoch": epoch, **{f"{_TRAINING}{name}": value for name, value in figures.items()}})

    def on_draw(self, cell: Cell, draw: int, auroc: float) -> None:
        """AUROC by draw."""
        self._of(cell).log({"draw": draw, _DRAW: auroc})

    def on_row(self, cell: Cell, row: Row) -> None:
        """Settings are the config, estimates the summary; the run is finished."""
        run = self._of(cell)
        run.config.update(_settings(row))
        run.summary.update({**_metrics(row), "ranks": row.ranks})
        self.on_left(cell)

    def on_left(self, cell: Cell) -> None:  # noqa: ARG002
        """The run is finished; a process that goes on with the cell begins another one of the same name."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _of(self, cell: Cell) -> Any:
        if self._run is None:
            import wandb

            self._run = wandb.init(
                mode="offline",
                dir=str(self._folder),
                project="medfsad",
                group=cell.benchmark,
                name=cell.run_id,
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, save_code=False),
            )
        return self._run


def _settings(row: Row) -> dict[str, str]:
    """What a run is, by name: what these programs filter and group by."""
    names = (
        "method",
        "method_version",
        "preset",
        "benchmark",
        "target",
        "shots",
        "draws",
        "seed",
        "protocol",
        "run_id",
    )
    return {name: str(getattr(row, name)) for name in names} | {
        f"config.{name}": str(value) for name, value in row.config.items()
    }


def _metrics(row: Row) -> dict[str, float]:
    """Estimates and their intervals' ends by name."""
    figures: dict[str, float] = {}
    for name, estimate in row.metrics.items():
        ends = {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        figures |= {name: estimate.value} | {end: value for end, value in ends.items() if value is not None}
    return figures
