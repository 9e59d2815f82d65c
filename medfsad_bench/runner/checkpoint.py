"""What weights were trained on: written into the checkpoint itself, and compared with the cell that would use them.

A file of safetensors holds a table of texts beside its tensors; the entry `medfsad` is a `TrainingRecord` as JSON. So
the record can't be parted from the weights, as a file beside them could.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from medfsad_bench.errors import WeightsError
from medfsad_bench.info import HoldOut
from medfsad_bench.runner.held_out import FACTS, why_held_out
from medfsad_bench.store import Dataset

_ENTRY = "medfsad"


class TrainingRecord(BaseModel):
    """How weights came about.

    Attributes:
        method: That was trained.
        method_version: Of it.
        config: What determines its weights, see `Cell.training`.
        weights: Digest of the feature network's weights.
        seed: Of training.
        shots: K in training.
        finished: Whether the last epoch was reached.
        sources: `held_out.FACTS` of each set that it was trained on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    method_version: str
    config: dict[str, Any]
    weights: str
    seed: int
    shots: int
    finished: bool
    sources: tuple[dict[str, str], ...]

    @property
    def membership_digests(self) -> dict[str, str]:
        """Of the sources, by name: what a row states of them."""
        return {source["name"]: source["membership_digest"] for source in self.sources}

    def metadata(self) -> dict[str, str]:
        """As the table of texts that a checkpoint holds."""
        return {_ENTRY: json.dumps(self.model_dump(), sort_keys=True)}


def facts_of(source: Dataset) -> dict[str, str]:
    """What a record says of a source."""
    return {name: str(source.attributes[name]) for name in FACTS}


def read_record(path: Path) -> TrainingRecord | None:
    """The record of a checkpoint; None where it has none, as files that other programs wrote.

    Raises:
        WeightsError: If the file is missing or damaged, or holds a record that can't be read.
    """
    if _existing(path).suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if _ENTRY not in metadata:
            return None
        record = TrainingRecord.model_validate_json(metadata[_ENTRY])
        for source in record.sources:
            json.loads({name: source[name] for name in FACTS}["held_out_with"])
    except (OSError, SafetensorError, ValidationError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: the checkpoint, or its record of what it was trained on, can't be read "
            f"({' '.join(str(error).split())[:200]}). Expected a file that `medfsad run` wrote under checkpoints/."
        ) from error
    return record


def unknown_training(path: Path) -> str:
    """What is said of weights without a record."""
    return f"nothing tells what {path.name} was trained on"


def checkpoint_digest(path: Path | None) -> str:
    """SHA-256 of a checkpoint; empty where none is named.

    Raises:
        WeightsError: If it is missing.
    """
    if path is None:
        return ""
    with _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def why_unfit(record: TrainingRecord, training: Mapping[str, Any], target: Dataset, hold_out: HoldOut) -> str:
    """Why weights may not be used in a cell; empty if they may.

    Args:
        record: Of the weights.
        training: What the cell would train, see `Cell.training`.
        target: The cell's target.
        hold_out: What no source may share with it.
    """
    for source in record.sources:
        if why := why_held_out(source, target, hold_out):
            return (
                f"was trained on {why}. Expected weights that never saw it; leave --checkpoint out to train on the "
                "other sets"
            )
    return why_other(record, training)


def why_other(record: TrainingRecord, training: Mapping[str, Any]) -> str:
    """Why weights aren't those that a method so configured would have; empty if they may be, whatever they saw."""
    stated = (record.method, record.method_version)
    wanted = (training["method"], training["method_version"])
    if stated != wanted:
        return f"holds weights of {' '.join(stated)}, this is {' '.join(wanted)}. Expected weights of the same version"
    if not record.finished:
        return "holds weights of a training that was interrupted. Let the run that wrote it go on to its end first"
    before, now = dict(record.config), json.loads(json.dumps(training["config"], default=str))
    differ = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    options = [f"--set {name}={before.get(name)} (now {now.get(name)})" for name in differ]
    options += [f"--seed {record.seed} (now {training['seed']})"] if record.seed != training["seed"] else []
    if options:
        return f"was trained otherwise than this run says: give {', '.join(options)}"
    if record.weights != training["weights"]:
        return "was trained on a feature network with other weights. Give the same --backbone and --weights"
    return ""


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(f"{path} doesn't exist. Expected a checkpoint file; --checkpoint names it.")
    return path
