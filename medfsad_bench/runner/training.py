"""Source training with checkpoints: written after every epoch, taken up again, shared by all cells that need the same.

<runs>/checkpoints/<training id>/state-a.safetensors what the method's `state()` returned, with its `TrainingRecord`
                                 training.json       which state counts, and whether training is finished
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from medfsad_bench.errors import WeightsError
from medfsad_bench.files import whole, whole_folder, write_json
from medfsad_bench.info import SOURCE_ANOMALIES, MethodInfo
from medfsad_bench.method import Method
from medfsad_bench.results.storage import locked, writing
from medfsad_bench.runner.checkpoint import TrainingRecord, facts_of, unknown_training
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.opened import OpenCell
from medfsad_bench.runner.plan import RunOptions
from medfsad_bench.runner.sources import DeviceSource, LabelledDeviceSource
from medfsad_bench.store import Dataset


@runtime_checkable
class Training(Protocol):
    """What has to be known of a training; a `Cell` knows it."""

    @property
    def info(self) -> MethodInfo:
        """The method's record."""

    @property
    def weights_digest(self) -> str:
        """Of the feature network's weights."""

    @property
    def sources(self) -> tuple[Dataset, ...]:
        """Sets to train on."""

    @property
    def options(self) -> RunOptions:
        """Seed, checkpoint, folder of runs."""

    @property
    def training(self) -> dict[str, Any]:
        """What determines the weights."""

    @property
    def training_id(self) -> str:
        """Hash of `training`."""

    @property
    def training_shots(self) -> int:
        """K in training."""

    @property
    def record(self) -> TrainingRecord | None:
        """What the checkpoint that the user named was trained on."""

    @property
    def checkpoint_fault(self) -> str:
        """Why that checkpoint may not be used; empty if it may."""


@dataclass(frozen=True, slots=True)
class Trained:
    """How a method came by its weights.

    Attributes:
        seconds: Time to train.
        reused: Whether a checkpoint was there.
        shots: K in training; None where it isn't known.
        unknown: Why it can't be known what it was trained on; empty if it can. Such a row doesn't rank.
    """

    seconds: float
    reused: bool
    shots: int | None
    unknown: str = ""


def train(run: OpenCell, *, folder: Path | None = None, on_epoch: Callable[[int], None] = lambda _: None) -> Trained:
    """Bring a cell's method to the state that it needs: from a checkpoint, resumed, or trained anew.

    Args:
        run: The open cell.
        folder: For the checkpoint; by default the one that all cells with the same training share.
        on_epoch: Called at the end of every epoch, before its checkpoint is written.

    Raises:
        WeightsError: If a checkpoint that the user named was trained on the target or doesn't fit.
    """
    if not run.cell.trains:
        return Trained(0.0, reused=False, shots=None)

    def epoch_over(epoch: int) -> None:
        run.callback.on_epoch(run.cell, epoch, run.context.figures)
        on_epoch(epoch)

    return train_method(run.method, run.context, run.cell, folder=folder, on_epoch=epoch_over)


def train_method(
    method: Method,
    context: LocalContext,
    cell: Training,
    *,
    folder: Path | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Bring a method that trains to the state that it needs; see `train`."""
    if cell.options.checkpoint is not None:
        return _from_checkpoint(method, cell, cell.options.checkpoint)
    folder = folder or shared_weights(cell)
    with locked(folder):
        record = _kept(folder)
        if record.get("state"):
            method.load_state(load_file(folder / record["state"]))
        if record.get("finished"):
            return Trained(float(record["seconds"]), reused=True, shots=cell.training_shots)
        started = time.monotonic() - float(record.get("seconds", 0.0))

        def epoch_end(epoch: int) -> None:
            on_epoch(epoch)
            _save(folder, method, cell, time.monotonic() - started, finished=False)

        context.on_epoch = epoch_end
        kind = LabelledDeviceSource if cell.info.knows(SOURCE_ANOMALIES) else DeviceSource
        method.pretrain({s.name: kind(s, context.device) for s in cell.sources}, context)
        context.on_epoch = None
        seconds = time.monotonic() - started
        _save(folder, method, cell, seconds, finished=True)
        return Trained(seconds, reused=False, shots=cell.training_shots)


def shared_weights(cell: Training) -> Path:
    """The folder of the checkpoint that all cells with the same training share."""
    return cell.options.runs / "checkpoints" / cell.training_id


def training_is_over(folder: Path) -> bool:
    """Whether a folder holds the checkpoint of a training that has reached its end."""
    return bool(_record(folder).get("finished"))


def share_weights(cell: Training, folder: Path) -> None:
    """Lend a training that is over, made in a folder of its own, to all cells that need the same."""
    shared = shared_weights(cell)
    if not shared.exists() and _kept(folder).get("finished"):
        with writing(shared), whole_folder(shared) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def _from_checkpoint(method: Method, cell: Training, path: Path) -> Trained:
    """Load weights that the user names: our own, or a form of the method's, which tells nothing of its training."""
    if fault := cell.checkpoint_fault:
        raise WeightsError(f"{path} {fault}.")
    foreign = getattr(method, "load_reference", None)
    if path.suffix != ".safetensors" and callable(foreign):
        foreign(path)
    else:
        method.load_state(_loaded(path))
    if cell.record is None:
        return Trained(0.0, reused=True, shots=None, unknown=unknown_training(path))
    return Trained(0.0, reused=True, shots=cell.record.shots)


def _kept(folder: Path) -> dict[str, Any]:
    """The record of a training that can be taken up; nothing if a crash tore its weights, so that it begins anew."""
    record = _record(folder)
    with suppress(OSError, SafetensorError), safe_open(folder / record.get("state", ""), framework="pt"):
        return record
    return {}


def _record(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "training.json").read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _loaded(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"--checkpoint {path} can't be read ({error}). Expected a .safetensors file as `medfsad run` writes under "
            "checkpoints/; name another, or leave --checkpoint out to train."
        ) from error


def _save(folder: Path, method: Method, cell: Training, seconds: float, *, finished: bool) -> None:
    """Two files by turns, so that the record always names a whole one."""
    previous = _record(folder).get("state")
    name = "state-b.safetensors" if previous == "state-a.safetensors" else "state-a.safetensors"
    state = {key: value.detach().cpu().contiguous() for key, value in method.state().items()}
    with writing(folder):
        with whole(folder / name) as temporary:
            try:
                save_file(state, temporary, metadata=_training_record(cell, finished=finished).metadata())
            except SafetensorError as error:
                raise OSError(str(error)) from error
        record = {"state": name, "finished": finished, "seconds": seconds, "training": cell.training}
        write_json(folder / "training.json", record)
    if previous and previous != name:
        (folder / previous).unlink(missing_ok=True)


def _training_record(cell: Training, *, finished: bool) -> TrainingRecord:
    training = cell.training
    return TrainingRecord(
        method=cell.info.name,
        method_version=cell.info.version,
        config=json.loads(json.dumps(training["config"], default=str)),
        weights=cell.weights_digest,
        seed=cell.options.seed,
        shots=cell.training_shots,
        finished=finished,
        sources=tuple(facts_of(source) for source in cell.sources),
    )
