"""What is to be run: cells of method × target × K, each with a run id that stands for what determines its result."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medfsad_bench.episodes import Episodes
from medfsad_bench.episodes.contamination import RULE
from medfsad_bench.errors import WeightsError
from medfsad_bench.info import ABNORMAL_SUPPORTS, HoldOut, MethodInfo, Protocol
from medfsad_bench.method import Backbone
from medfsad_bench.registry import configure
from medfsad_bench.results.protocol_checks import partners_of
from medfsad_bench.runner.weights import weights_digest
from medfsad_bench.store import Dataset

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

    @cached_property
    def episodes(self) -> Episodes:
        """Who is support and who is query."""
        abnormal = self.info.knows(ABNORMAL_SUPPORTS)
        return Episodes(self.target, self.shots, contaminated=self.options.contaminated, abnormal=abnormal)

    @property
    def absent(self) -> str:
        """Why the cell doesn't exist; empty if it does."""
        if reason := self.episodes.why_absent(self.options.draws):
            return reason
        if self.trains and not self.sources:
            return f"no other data set to train on beside {self.target.name}"
        if self.options.contaminated and self.options.protocol != "strict":
            return "contaminated supports are known to the strict protocol alone"
        return ""

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

    @property
    def facts(self) -> dict[str, Any]:
        """What a row says of the cell, by the row's names."""
        return {
            "run_id": self.run_id,
            "protocol": self.options.protocol,
            "hold_out": self.options.hold_out,
            "method": self.info.name,
            "method_version": self.info.version,
            "preset": self.options.preset,
            "config": json.loads(json.dumps(self.identity["config"])),
            "weights_digest": self.weights_digest,
            "knowledge": self.info.knowledge,
            "sources": {source.name: source.attributes["membership_digest"] for source in self.sources},
            "shots": self.shots,
            "draws": self.options.draws,
            "seed": self.options.seed,
            "contaminated_supports": self.options.contaminated,
        }


def learns_from_sources(info: MethodInfo, config: Any) -> bool:
    """Whether a method so configured needs sources: one may be trained on the support instead (`trained_on`)."""
    return info.trains and getattr(config, "trained_on", "sources") == "sources"


def sources_for(target: Dataset, sets: Sequence[Dataset], hold_out: HoldOut) -> tuple[Dataset, ...]:
    """The sets that a method may be trained on: none that shares images with the target, nor what `hold_out` adds."""

    def held_out(other: Dataset) -> bool:
        if other.name == target.name or other.name in _declared(target) or target.name in _declared(other):
            return True
        if share_files(target, other):
            return True
        return hold_out != "dataset" and other.attributes[hold_out] == target.attributes[hold_out]

    return tuple(other for other in sets if not held_out(other))


def share_files(target: Dataset, other: Dataset) -> bool:
    """Whether two prepared sets have an image of the same raw file, whatever their manifests know of each other.

    Altered copies and other formats are found when the second of the two is prepared, which names the first in its
    `held_out_with`.
    """
    return not set(target.table["sha256"]).isdisjoint(other.table["sha256"])


def held_out_by_content(target: Dataset, sets: Sequence[Dataset]) -> list[str]:
    """Sets that are held out with the target although no manifest says so: their prepared files share images."""
    partners = partners_of(target.name)
    return [
        other.name
        for other in sets
        if other.name not in (target.name, *partners)
        and (other.name in _declared(target) or target.name in _declared(other) or share_files(target, other))
    ]


def _declared(dataset: Dataset) -> list[str]:
    return list(json.loads(dataset.attributes["held_out_with"]))


def cells(
    info: MethodInfo, targets: Sequence[Dataset], sets: Sequence[Dataset], shots: Sequence[int], options: RunOptions
) -> list[Cell]:
    """Every cell asked for, those that can't exist included."""
    planned = []
    for target in targets:
        for k in shots:
            config = configure(info, preset=options.preset, settings=options.settings)
            if any(field.name == "shots" for field in dataclasses.fields(config)):
                config = dataclasses.replace(config, shots=k)
            others = sources_for(target, sets, options.hold_out)
            sources = others if learns_from_sources(info, config) else ()
            references = () if info.knows(ABNORMAL_SUPPORTS) else others  # there is no pool of theirs
            planned.append(Cell(info, config, _weights_of(config), target, sources, k, options, references))
    return planned


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
