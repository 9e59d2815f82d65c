"""What is to be run: cells of method × target × K, each with a run id that stands for what determines its result."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from medfsad_bench.episodes.abnormal import AbnormalPool, abnormal_pool
from medfsad_bench.episodes.contamination import RULE, support_rows, why_absent
from medfsad_bench.errors import StoreError, WeightsError
from medfsad_bench.info import ABNORMAL_SUPPORTS, MethodInfo
from medfsad_bench.manifest import OWN
from medfsad_bench.method import Backbone
from medfsad_bench.registry import configure
from medfsad_bench.runner.weights import weights_digest
from medfsad_bench.store import Dataset, prepared_files

HoldOut = Literal["dataset", "organ", "modality"]
Protocol = Literal["strict", "published"]
SCORING = "2"  # rises when the runner's own part of a score (smoothing, pooling, order) changes


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user asked for, the same for all cells."""

    runs: Path
    draws: int = 10
    seed: int = 0
    protocol: Protocol = "strict"
    hold_out: HoldOut = "dataset"
    preset: str = "paper"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    device: str = "auto"
    checkpoint: Path | None = None
    save_maps: bool = False
    batch_size: int = 32
    contaminated: int = 0  # supports that are anomalies nobody noticed


@dataclass(frozen=True)
class Cell:
    """One method on one target at K shots."""

    info: MethodInfo
    config: Any
    weights_digest: str
    target: Dataset
    sources: tuple[Dataset, ...]
    shots: int
    options: RunOptions
    references: tuple[Dataset, ...] = ()  # whose normals help to set thresholds; nothing is trained on them

    @property
    def trains(self) -> bool:
        """Whether `pretrain` learns from sources."""
        return learns_from_sources(self.info, self.config)

    @property
    def absent(self) -> str:
        """Why the cell doesn't exist; empty if it does."""
        fewest = min((len(draw) for draw in self.target.episodes), default=0)
        if fewest < self.shots:
            return f"{self.target.name} has {fewest} training groups, fewer than {self.shots} shots"
        if self.options.draws > len(self.target.episodes):
            return (
                f"{self.target.name} holds {len(self.target.episodes)} support draws, fewer than {self.options.draws}"
            )
        if self.pool is not None and len(self.pool.rows) < self.shots:
            return (
                f"{self.target.name} can spare {len(self.pool.rows)} anomalous groups for abnormal supports, fewer "
                f"than {self.shots} shots"
            )
        if self.trains and not self.sources:
            return f"no other data set to train on beside {self.target.name}"
        if self.options.contaminated and self.options.protocol != "strict":
            return "contaminated supports are known to the strict protocol alone"
        if self.options.contaminated and self.pool is not None:
            return f"{self.info.name} takes abnormal supports, beside which contaminated ones say nothing"
        return why_absent(self.target, self.shots, self.options.contaminated)

    def support(self, draw: int) -> Int64[np.ndarray, " k"]:
        """Rows of a draw's supports."""
        return support_rows(self.target, draw, self.shots, self.options.contaminated)

    @cached_property
    def pool(self) -> AbnormalPool | None:
        """Where abnormal supports come from, if the method declares them: these are no queries then."""
        return abnormal_pool(self.target) if self.info.knows(ABNORMAL_SUPPORTS) else None

    @property
    def training(self) -> dict[str, Any]:
        """What determines the weights that `pretrain` ends with."""
        canonical = getattr(self.config, "training", None)
        config = canonical() if callable(canonical) else dataclasses.asdict(self.config)
        return {
            "method": self.info.name,
            "method_version": self.info.version,
            "config": config,
            "weights": self.weights_digest,
            "sources": {source.name: source.attributes["content_digest"] for source in self.sources},
            "seed": self.options.seed,
        }

    @property
    def training_id(self) -> str:
        """Hash of `training`: checkpoints are reused by it."""
        return _hash(self.training)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the scores."""
        contaminated = {"contaminated": {"supports": self.options.contaminated, "rule": RULE}}
        return {
            "training": self.training if self.trains else {**self.training, "sources": {}},
            "config": dataclasses.asdict(self.config),
            "benchmark": self.target.attributes["benchmark"],
            "target": self.target.name,
            "membership_digest": self.target.attributes["membership_digest"],
            "content_digest": self.target.attributes["content_digest"],
            "references": {other.name: other.attributes["content_digest"] for other in self.references},
            "hold_out": self.options.hold_out,
            "protocol": self.options.protocol,
            "shots": self.shots,
            "draws": self.options.draws,
            "checkpoint": _file_digest(self.options.checkpoint),
            "scoring": SCORING,
            **(contaminated if self.options.contaminated else {}),
        }

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable, and a hash of `identity`."""
        name, shots = self.info.name.replace(":", "-"), f"{self.shots}shot"
        if self.options.contaminated:
            shots += f"-{self.options.contaminated}contaminated"
        return f"{name}-{self.target.name}-{shots}-{_hash(self.identity)[:12]}"


def learns_from_sources(info: MethodInfo, config: Any) -> bool:
    """Whether a method so configured needs sources: one may be trained on the support instead (`trained_on`)."""
    return info.trains and getattr(config, "trained_on", "sources") == "sources"


def prepared_sets(data: Path, benchmark: str | None = None) -> list[Dataset]:
    """All prepared sets of one benchmark.

    Args:
        data: Folder that `prepare` wrote to, or one benchmark's folder in it.
        benchmark: Which one; may be None if there is only one.

    Raises:
        StoreError: If there's none, more than one benchmark to choose from, or two files of one set.
    """
    if not data.is_dir():
        raise StoreError(f"{data} is no folder. Expected prepared files (*.h5) there; `medfsad prepare` writes them.")
    folders = [data] if prepared_files(data) else sorted(f for f in data.iterdir() if prepared_files(f))
    folders = [f for f in folders if benchmark in (None, f.name) or f == data]
    if benchmark is None and len(folders) > 1:
        folders = [f for f in folders if f.name != OWN]
    if len(folders) != 1:
        found = ", ".join(f.name for f in folders) or "none"
        raise StoreError(
            f"{data} holds prepared files of these benchmarks: {found}; expected one"
            f"{f' named {benchmark!r}' if benchmark else ''}. Choose with --benchmark, or run `medfsad prepare` first."
        )
    return _sets_in(folders[0])


def own_sets(data: Path) -> list[Dataset]:
    """The user's own prepared folders, which may be targets beside any benchmark."""
    return _sets_in(data / OWN)


def _sets_in(folder: Path) -> list[Dataset]:
    sets = [Dataset(path) for path in prepared_files(folder)]
    by_name: dict[str, Dataset] = {}
    for dataset in sets:
        if dataset.name in by_name:
            raise StoreError(
                f"{folder} holds two files of {dataset.name!r}: {by_name[dataset.name].path.name} and "
                f"{dataset.path.name}. Move one of them to another folder."
            )
        by_name[dataset.name] = dataset
    return list(by_name.values())


def sources_for(target: Dataset, sets: Sequence[Dataset], hold_out: HoldOut) -> tuple[Dataset, ...]:
    """The sets that a method may be trained on: none that shares images with the target, nor what `hold_out` adds."""

    def held_out(other: Dataset) -> bool:
        together = json.loads(other.attributes["held_out_with"]), json.loads(target.attributes["held_out_with"])
        if other.name == target.name or target.name in together[0] or other.name in together[1]:
            return True
        return hold_out != "dataset" and other.attributes[hold_out] == target.attributes[hold_out]

    return tuple(other for other in sets if not held_out(other))


def cells(
    info: MethodInfo, targets: Sequence[Dataset], sets: Sequence[Dataset], shots: Sequence[int], options: RunOptions
) -> list[Cell]:
    """Every cell asked for, those that can't exist included."""
    found = []
    for target in targets:
        for k in shots:
            config = _with_shots(info, options, k)
            others = sources_for(target, sets, options.hold_out)
            sources = others if learns_from_sources(info, config) else ()
            references = () if info.knows(ABNORMAL_SUPPORTS) else others  # there is no pool of theirs
            found.append(Cell(info, config, _weights_of(config), target, sources, k, options, references))
    return found


def _with_shots(info: MethodInfo, options: RunOptions, shots: int) -> Any:
    config = configure(info, preset=options.preset, settings=options.settings)
    if any(field.name == "shots" for field in dataclasses.fields(config)):
        return dataclasses.replace(config, shots=shots)
    return config


def _weights_of(config: Any) -> str:
    own = getattr(config, "weights_digest", None)  # of a network that timm doesn't have
    if callable(own):
        return str(own())
    name = getattr(config, "backbone", None)
    if not name:
        return ""
    return weights_digest(Backbone(name, weights=getattr(config, "weights", None)))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _file_digest(path: Path | None) -> str:
    if path is None:
        return ""
    if not path.is_file():
        raise WeightsError(f"{path} doesn't exist. Expected a checkpoint file; --checkpoint names it.")
    return hashlib.sha256(path.read_bytes()).hexdigest()
