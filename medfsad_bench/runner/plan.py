"""What is to be run: cells of method × target × K, each with a run id that stands for what determines its result."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from medfsad_bench.episodes import Episodes
from medfsad_bench.episodes.contamination import RULE
from medfsad_bench.errors import MethodError
from medfsad_bench.info import ABNORMAL_SUPPORTS, HoldOut, MethodInfo, Protocol
from medfsad_bench.manifest import OWN
from medfsad_bench.method import Backbone
from medfsad_bench.registry import configure
from medfsad_bench.results.assembly import facts_of_target
from medfsad_bench.results.identity import SEEN, STATES, digest_of, run_id_of, statement_of_choice
from medfsad_bench.results.protocol_checks import seen_facts
from medfsad_bench.runner.checkpoint import (
    TrainingRecord,
    checkpoint_digest,
    read_record,
    unknown_training,
    why_unfit,
)
from medfsad_bench.runner.held_out import sources_for
from medfsad_bench.runner.weights import weights_digest
from medfsad_bench.store import Dataset
from medfsad_bench.store.proof import benchmark_of, prove

_PLAIN = frozenset((str, int, float, bool, type(None)))
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
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # on which sets and from which grid, if tuned


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
    benchmark: str = ""  # whose rows the cell makes; found out here unless the planner knows it already

    def __post_init__(self) -> None:
        if not self.benchmark:
            object.__setattr__(self, "benchmark", _benchmark_of_rows(self.target, self.sources))

    @property
    def title(self) -> str:
        """What people call the cell."""
        options = self.options
        contaminated = f", {options.contaminated} contaminated" if options.contaminated else ""
        seed = f", seed {options.seed}" if options.seed else ""
        return f"{self.info.name} · {self.target.name} · {self.shots} shots{contaminated}{seed}"

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
        if self.shots < self.info.fewest_shots:
            return f"{self.info.name} needs {self.info.fewest_shots} shots or more"
        if self.checkpoint_fault:
            return f"{self.options.checkpoint} {self.checkpoint_fault}"
        if self.trains and not self.sources and self.options.checkpoint is None:
            return f"no other data set to train on beside {self.target.name}; prepare another"
        if self.options.contaminated and self.options.protocol != "strict":
            return "contaminated supports are known to the strict protocol alone"
        return ""

    @cached_property
    def record(self) -> TrainingRecord | None:
        """What the checkpoint that the user named was trained on; None where there is none, or it doesn't say."""
        return None if self.options.checkpoint is None else read_record(self.options.checkpoint)

    @property
    def checkpoint_fault(self) -> str:
        """Why the checkpoint that the user named may not be used; empty if it may."""
        return why_unfit(self.record, self.training, self.target, self.options.hold_out) if self.record else ""

    @property
    def training(self) -> dict[str, Any]:
        """What determines the weights that `pretrain` ends with."""
        return training_of(self.info, self.config, self.weights_digest, self.sources, self.options.seed)

    @property
    def training_shots(self) -> int:
        """K in training: that of the target's episodes unless the config has one of its own."""
        return getattr(self.config, "train_shots", None) or self.shots

    @cached_property
    def training_id(self) -> str:
        """Hash of `training`: checkpoints are reused by it."""
        return digest_of(self.training)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the scores."""
        contaminated = {"contaminated": {"supports": self.options.contaminated, "rule": RULE}}
        return {
            "training": self.training if self.trains else {**self.training, "sources": {}},
            "config": _plain(self.config),
            "benchmark": self.benchmark,
            "target": self.target.name,
            "membership_digest": self.target.attributes["membership_digest"],
            "content_digest": self.target.attributes["content_digest"],
            "references": {other.name: other.attributes["content_digest"] for other in self.references},
            "hold_out": self.options.hold_out,
            "protocol": self.options.protocol,
            "shots": self.shots,
            "draws": self.options.draws,
            "checkpoint": checkpoint_digest(self.options.checkpoint),
            "scoring": SCORING,
            **(contaminated if self.options.contaminated else {}),
            **({"chosen": self.options.chosen} if self.options.chosen else {}),
        }

    @cached_property
    def run_id(self) -> str:
        """Name of the run's folder: readable, and a hash of `identity`."""
        return run_id_of(self.identity)

    @property
    def facts(self) -> dict[str, Any]:
        """What a row says of the cell, by the row's names: the sources are those that the weights saw."""
        trained_on = {source.name: source.attributes["membership_digest"] for source in self.sources}
        return {
            **facts_of_target(self.target),
            "run_id": self.run_id,
            "benchmark": self.benchmark,
            "protocol": self.options.protocol,
            "hold_out": self.options.hold_out,
            "method": self.info.name,
            "method_version": self.info.version,
            "preset": self.options.preset,
            "config": json.loads(json.dumps(self.identity["config"])),
            "weights_digest": self.weights_digest,
            "knowledge": self.info.knowledge,
            "sources": self.record.membership_digests if self.record else trained_on,
            "shots": self.shots,
            "draws": self.options.draws,
            "seed": self.options.seed,
            "contaminated_supports": self.options.contaminated,
            **statement_of_choice(self.options.chosen),
        }

    @property
    def statements(self) -> dict[str, Any]:
        """What `config.json` says beside `identity`, so that a row can be held against it."""
        unknown = "" if self.record or self.options.checkpoint is None else unknown_training(self.options.checkpoint)
        return {STATES: self.facts, SEEN: seen_facts(self.target, self.info.has_seen, unknown)}


def training_of(
    info: MethodInfo, config: Any, weights_digest: str, sources: Sequence[Dataset], seed: int
) -> dict[str, Any]:
    """What determines the weights that `pretrain` ends with."""
    canonical = getattr(config, "training", None)
    return {
        "method": info.name,
        "method_version": info.version,
        "config": canonical() if callable(canonical) else _plain(config),
        "weights": weights_digest,
        "sources": {source.name: source.attributes["content_digest"] for source in sources},
        "seed": seed,
    }


def learns_from_sources(info: MethodInfo, config: Any) -> bool:
    """Whether a method so configured needs sources: one may be trained on the support instead (`trained_on`)."""
    return info.trains and getattr(config, "trained_on", "sources") == "sources"


def cells(
    info: MethodInfo, targets: Sequence[Dataset], sets: Sequence[Dataset], shots: Sequence[int], options: RunOptions
) -> list[Cell]:
    """Every cell asked for of one method and one seed; see `sweep_cells`."""
    return sweep_cells([info], targets, sets, shots, [options])


def sweep_cells(
    infos: Sequence[MethodInfo],
    targets: Sequence[Dataset],
    sets: Sequence[Dataset],
    shots: Sequence[int],
    variants: Sequence[RunOptions],
) -> list[Cell]:
    """Every cell asked for, those that can't exist included: by target, then method, then variant, then K.

    Args:
        infos: The methods.
        targets: Sets to test on.
        sets: Those of the benchmark: what may be trained on.
        shots: Numbers of supports.
        variants: Options that differ in the seed alone.

    Raises:
        StoreError: If a file that takes part isn't what `prepare` wrote.
        MethodError: If weights are given to a method that trains nothing.
    """
    configured = [
        (info, options, k, config, learns_from_sources(info, config), weights_of(config))
        for info in infos
        for options in variants
        for k in shots
        for config in [_config_of(info, options, k)]
    ]
    planned = []
    for target in targets:
        others = sources_for(target, sets, variants[0].hold_out)
        for dataset in (target, *others):
            prove(dataset)
        benchmarks = {trains: _benchmark_of_rows(target, others if trains else ()) for trains in (True, False)}
        for info, options, k, config, learns, weights in configured:
            if options.checkpoint is not None and not learns:
                raise MethodError(
                    f"--checkpoint {options.checkpoint} is given to {info.name!r}, which learns nothing from other "
                    "sets here and would not use it. Leave it out, or name a method that trains."
                )
            trained = learns and options.checkpoint is None
            references = () if info.knows(ABNORMAL_SUPPORTS) else others  # there is no pool of theirs
            sources = others if trained else ()
            benchmark = benchmarks[trained]
            planned.append(Cell(info, config, weights, target, sources, k, options, references, benchmark))
    return planned


def _benchmark_of_rows(target: Dataset, sources: Sequence[Dataset]) -> str:
    """The target's benchmark, unless a source of the training is somebody's own data."""
    return OWN if any(benchmark_of(source) == OWN for source in sources) else benchmark_of(target)


def _plain(config: Any) -> dict[str, Any]:
    """A config as `dataclasses.asdict` gives it; most hold plain values alone, and copying those takes long."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    parts = chain.from_iterable(value if isinstance(value, tuple) else (value,) for value in values.values())
    return values if _PLAIN.issuperset(map(type, parts)) else dataclasses.asdict(config)


def _config_of(info: MethodInfo, options: RunOptions, shots: int) -> Any:
    config = configure(info, preset=options.preset, settings=options.settings)
    has_shots = any(field.name == "shots" for field in dataclasses.fields(config))
    return dataclasses.replace(config, shots=shots) if has_shots else config


def weights_of(config: Any) -> str:
    """Digest of the weights of a config's feature network; empty where it has none."""
    own = getattr(config, "weights_digest", None)  # of a network that timm doesn't have
    if callable(own):
        return str(own())
    name = getattr(config, "backbone", None)
    if not name:
        return ""
    return weights_digest(Backbone(name, weights=getattr(config, "weights", None)))
