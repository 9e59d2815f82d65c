"""A method of the registry, ready to be shown supports: configured, trained if it trains, and on what."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medfsad_bench.errors import MethodError
from medfsad_bench.info import ABNORMAL_SUPPORTS, MethodInfo
from medfsad_bench.method import Method
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.checkpoint import TrainingRecord, checkpoint_digest, read_record, unknown_training, why_other
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.opened import Progress, memory_told
from medfsad_bench.runner.plan import RunOptions, learns_from_sources, training_of, weights_of
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.training import train_method
from medfsad_bench.store import Dataset
from medfsad_bench.store.prepared import prepared_sets
from medfsad_bench.store.proof import prove

DEFAULT_METHOD = "multistage"
"""Of the methods without training that lead the board at four shots and can't be told apart, one whose maps are among
the best where masks are (leaderboard/LEADERBOARD.md): its mean AUROC is 0.691, that of `late_fusion` 0.698."""

_CACHE_BYTES = 512 << 20  # the supports' features, while each of them is left out
_PASSING_BYTES = 128 << 20  # those of a batch of new images, which aren't seen again
_NAMED = 3


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Which method, and how it is set; as in `medfsad run`.

    Attributes:
        name: In the registry.
        preset: paper, quick, or one of the method's.
        settings: Fields of its config by name.
        device: auto, cpu, cuda or cuda:N.
        seed: Of training.
        checkpoint: Weights to use instead of training.
        data: Folder of prepared sets to train on.
        benchmark: Which one, if it holds several.
        runs: Folder for checkpoints.
        store: Of features of the sets to train on; those of the user's own images never come on a disk.
        progress: Told of training.
    """

    name: str
    preset: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    seed: int = 0
    checkpoint: Path | None = None
    data: Path | None = None
    benchmark: str | None = None
    runs: Path | None = None
    store: FeatureStore | None = None
    progress: Progress = field(default=lambda *_: None)


@dataclass(frozen=True, slots=True)
class TrainedMethod:
    """A method that can be adapted.

    Attributes:
        method: Trained, if it trains.
        context: Lent to it.
        identity: What determines its scores.
        trained_on: In words.
        notes: What a user should know of its training.
    """

    method: Method
    context: LocalContext
    identity: dict[str, Any]
    trained_on: str
    notes: list[str]
    config: Any

    def new_images_follow(self) -> None:
        """Keep features of no more than a batch from now on."""
        self.context.cache.keep_at_most(_PASSING_BYTES)

    def memory_told(self) -> AbstractContextManager[None]:
        """Turn running out of memory into one paragraph."""
        return memory_told(self.context.device, self.config)


@dataclass(frozen=True)
class _Training:
    """What `train_method` has to know; there is no target to hold out."""

    info: MethodInfo
    weights_digest: str
    sources: tuple[Dataset, ...]
    options: RunOptions
    training: dict[str, Any]
    training_shots: int
    record: TrainingRecord | None

    @property
    def training_id(self) -> str:
        from medfsad_bench.results.identity import digest_of

        return digest_of(self.training)

    @property
    def checkpoint_fault(self) -> str:
        return why_other(self.record, self.training) if self.record else ""


def trained_method(options: MethodOptions, *, shots: int, digests: Sequence[str] = ()) -> TrainedMethod:
    """Build a method, and train it or take up its weights where it learns from other sets.

    Args:
        options: Which one.
        shots: How many supports there are.
        digests: SHA-256 of their files: sets that hold one of them are left out of the training.

    Raises:
        MethodError: If it is unknown, needs anomalies that nobody has here, or has nothing to train on.
        WeightsError: If weights can't be had or don't fit.
        StoreError: If a prepared file isn't what `prepare` wrote.
    """
    info = method_info(options.name)
    if info.knows(ABNORMAL_SUPPORTS):
        raise MethodError(
            f"{info.name!r} takes abnormal supports beside the normal ones, and `score` has none. Expected a method of "
            "normal supports; `medfsad methods` says which those are."
        )
    config = configure(info, preset=options.preset, settings=options.settings)
    if any(item.name == "shots" for item in dataclasses.fields(config)):
        config = dataclasses.replace(config, shots=shots)
    context = LocalContext(Runner(options.device).device, options.seed)
    context.cache = context.values = FeatureCache(context.device, budget_bytes=_CACHE_BYTES, store=options.store)
    context.on_progress = lambda done, total, numbers: options.progress("training", done, total, numbers)
    weights = weights_of(config)
    learns = learns_from_sources(info, config)
    if options.checkpoint is not None and not learns:
        raise MethodError(
            f"--checkpoint {options.checkpoint} is given to {info.name!r}, which learns nothing from other sets and "
            "would not use it. Leave it out, or name a method that trains."
        )
    sources, notes = _sources(info, options, digests) if learns else ((), [])
    record = read_record(options.checkpoint) if options.checkpoint is not None else None
    training = _Training(
        info,
        weights,
        sources,
        RunOptions(options.runs or Path(), seed=options.seed, checkpoint=options.checkpoint),
        training_of(info, config, weights, sources, options.seed),
        getattr(config, "train_shots", None) or shots,
        record,
    )
    if options.store is not None:
        options.store.set_names |= {source.attributes["content_digest"]: source.name for source in sources}
    method = info.build(config)
    if learns:
        with memory_told(context.device, config):
            train_method(method, context, training)
    identity = {
        **training.training,
        "config": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "checkpoint": checkpoint_digest(options.checkpoint),
        "has_seen": list(info.has_seen),
    }
    trained_on = _trained_on(options, sources, record) if learns else "nothing but the supports: it isn't trained"
    return TrainedMethod(method, context, identity, trained_on, notes, config)


def without_supports(data: Path, benchmark: str | None, digests: Sequence[str]) -> tuple[list[Dataset], list[str]]:
    """Prepared sets that hold none of the supports, and the names of those that do.

    Args:
        data: Folder of prepared sets.
        benchmark: Which one, if it holds several.
        digests: SHA-256 of the supports' files.

    Raises:
        StoreError: If a prepared file isn't what `prepare` wrote, or there is none.
    """
    sources, holding = [], []
    for dataset in prepared_sets(data, benchmark):
        prove(dataset)
        if set(digests).isdisjoint(np.asarray(dataset.table["sha256"], str)):
            sources.append(dataset)
        else:
            holding.append(dataset.name)
    return sources, holding


def _sources(info: MethodInfo, options: MethodOptions, digests: Sequence[str]) -> tuple[tuple[Dataset, ...], list[str]]:
    """Prepared sets to train on, without those that hold a support."""
    if options.checkpoint is not None:
        return (), []
    if options.data is None or options.runs is None:
        raise MethodError(
            f"{info.name!r} learns from other data sets first. Give --checkpoint with weights of a run, or --data with "
            "prepared sets to train on."
        )
    sources, holding = without_supports(options.data, options.benchmark, digests)
    notes = [f"{name} holds supports, so nothing is trained on it." for name in holding]
    if not sources:
        raise MethodError(
            f"{info.name!r} learns from other data sets first, and {options.data} has none that may be used "
            f"({' '.join(notes) or 'nothing is prepared there'}). Prepare some, or give --checkpoint."
        )
    return tuple(sources), notes


def _trained_on(options: MethodOptions, sources: Sequence[Dataset], record: TrainingRecord | None) -> str:
    if options.checkpoint is None:
        return ", ".join(source.name for source in sources)
    if record is None:
        return f"{unknown_training(options.checkpoint)}: it may have seen these images"
    return f"{', '.join(source['name'] for source in record.sources)} (weights of {options.checkpoint.name})"
