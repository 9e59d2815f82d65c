"""The contract of pretrain, state and load_state, on phantoms."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from safetensors.torch import load, save

from medfsad_bench.errors import WeightsError
from medfsad_bench.method import AbnormalShotMethod, Method
from medfsad_bench.results.protocol_checks import allowed_difference
from medfsad_bench.runner.answers import scorer_of, scores_of, told
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.scoring import pooled_scores
from medfsad_bench.testing.clauses import SEEDED, Clause, all_tried
from medfsad_bench.testing.phantoms import PhantomSource, phantom_images

_SHORT = {"epochs": 1, "steps": 2}


def shortened(config: Any) -> Any:
    """The same settings with one epoch and two steps, as far as they are named as usual."""
    names = [field.name for field in dataclasses.fields(config) if field.name in _SHORT]
    present = {name: getattr(config, name) for name in names}
    longer = {name: _SHORT[name] for name, value in present.items() if value is None or value > _SHORT[name]}
    return dataclasses.replace(config, **longer)


def training_contract(
    build: Callable[[], Method], *, context: LocalContext | None = None, size_px: int = 64
) -> tuple[list[Clause], Method]:
    """Train a method on phantoms, and try every clause about what it learns.

    Args:
        build: Makes the method anew, untrained; see `shortened`.
        context: What it is lent; a CPU context with seed 0 by default.
        size_px: Edge of the phantoms.

    Returns:
        The clauses, and the method as it was trained.
    """
    trained = _Trained(build, context or LocalContext(), size_px)
    trials = {
        "pretrain": ("pretrain learns from normal images of other sets", trained.pretrain),
        "epoch_end": ("pretrain tells the end of each epoch", trained.epoch_end),
        "seed": ("the same seed trains the same method", trained.seed),
        "state": ("state returns what was learnt, as tensors by name", trained.state),
        "load_state": ("load_state takes it up, and scores are the same", trained.load_state),
        "foreign state": ("load_state refuses another method's state", trained.foreign_state),
    }
    needed = {"pretrain": "it isn't trained", "state": "there is no state"}
    return all_tried(trials, needed=needed), trained.method


class _Trained:
    """A method that is trained on phantoms; each clause returns its fault."""

    def __init__(self, build: Callable[[], Method], context: LocalContext, size_px: int) -> None:
        self.build, self.context, self.size_px = build, context, size_px
        self.method = build()
        self.epochs: list[int] = []

    def pretrain(self) -> str:
        self.method = self._trained()
        return ""

    def epoch_end(self) -> str:
        return "" if self.epochs else "pretrain never called context.epoch_end, so a broken run can't go on."

    def seed(self) -> str:
        torch.rand(7)  # so that a generator which the method doesn't seed itself is somewhere else
        same = self._scores_alike(self._trained())
        return "" if same else f"trained again with the same seed it gives other scores. {SEEDED}"

    def state(self) -> str:
        values = told("state", self.method, self.method.state)
        if not isinstance(values, dict) or not values:
            return f"state() returned {values!r} after training, so nothing could be kept. Expected tensors by name."
        wrong = [name for name, value in values.items() if not isinstance(value, torch.Tensor)]
        return f"state()[{wrong[0]!r}] is no tensor. Expected tensors by name, flat." if wrong else ""

    def load_state(self) -> str:
        again = self.build()
        stored = load(save({name: value.detach().cpu().contiguous() for name, value in self.method.state().items()}))
        told("load_state", again, lambda: again.load_state(stored))
        same = self._scores_alike(again)
        return "" if same else "a method built anew gives other scores after load_state(state()): a part is missing."

    def foreign_state(self) -> str:
        again = self.build()
        try:
            told("load_state", again, lambda: again.load_state({"of nobody": torch.zeros(1)}))
        except WeightsError:
            return ""
        return "load_state took another method's state without a word. Raise WeightsError if a name or shape differs."

    def _trained(self) -> Method:
        sources = {f"phantom_{seed}": PhantomSource(seed, self.size_px, self.context.device) for seed in (1, 2)}
        method, context = self.build(), self.context.apart()
        context.on_epoch = self.epochs.append
        told("pretrain", method, lambda: method.pretrain(sources, context))
        return method

    def _scores_alike(self, other: Method) -> bool:
        scores = self._scores(self.method)
        return bool(np.abs(scores - self._scores(other)).max() <= allowed_difference(scores, np.zeros(0)))

    def _scores(self, method: Method) -> Float64[np.ndarray, " n"]:
        images = phantom_images(11, size_px=self.size_px).to(self.context.device)
        if isinstance(method, AbnormalShotMethod):
            method = method.bound(images[8:])
        context = self.context.apart()
        scorer = told("adapt", method, lambda: scorer_of(method, images[:3], context))
        return pooled_scores(told("the scorer", method, lambda: scores_of(scorer, images[3:8])), self.size_px)
