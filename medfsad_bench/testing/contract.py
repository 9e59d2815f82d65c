"""The contract of adapt and the scorer, clause by clause."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from medfsad_bench.errors import MethodError
from medfsad_bench.method import AbnormalShotMethod, Images, Method, Scorer
from medfsad_bench.results.protocol_checks import PASSED, allowed_difference, check_scores
from medfsad_bench.runner.answers import scorer_of, scores_of, told
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.rerun_checks import perturbed
from medfsad_bench.runner.scoring import pooled_scores
from medfsad_bench.testing.clauses import SEEDED, Clause, all_tried
from medfsad_bench.testing.phantoms import phantom_images

QUERIES = 40  # in one batch: more than a run ever shows
_SIZES = 5, 17
_ALONE = 6
Given = dict[str, Float64[np.ndarray, "n ..."]]  # by kind: the score as a run has it, and the anomaly map


def check_method(
    method: Method,
    *,
    images: Images | None = None,
    shots: int = 3,
    context: LocalContext | None = None,
    support_order_matters: bool = False,
) -> None:
    """Assert the contract; see `contract`.

    Raises:
        MethodError: Naming the first clause that is broken.
    """
    clauses = contract(method, images=images, shots=shots, context=context, support_order_matters=support_order_matters)
    for clause in clauses:
        if clause.fault:
            raise MethodError(f"Contract broken: {clause.fault}")


def contract(
    method: Method,
    *,
    images: Images | None = None,
    shots: int = 3,
    context: LocalContext | None = None,
    support_order_matters: bool = False,
) -> list[Clause]:
    """Try every clause on a method.

    Args:
        method: Trained or not.
        images: At least `shots` + 12 pictures; phantoms by default.
        shots: How many of them are the support.
        context: What the method is lent; a CPU context with seed 0 by default.
        support_order_matters: Declared by a method whose supports aren't exchangeable.
    """
    context = context or LocalContext()
    images = phantom_images(shots + QUERIES).to(context.device) if images is None else images
    if isinstance(method, AbnormalShotMethod):
        method = method.bound(phantom_images(shots, size_px=images.shape[-1], seed=1).to(context.device))
    subject = _Subject(method, images[:shots], images[shots:], context.apart())
    trials: dict[str, tuple[str, Callable[[_Subject], str]]] = {
        "answer": ("one finite score or map per image, as Scores", _answer),
        "input": ("images and supports stay as they are", _input),
        "repeat": ("the same call gives the same scores", _repeat),
        "order": ("the order of the queries doesn't matter", _order),
        "batch": ("nor do the other images of a batch, and their number", _batch),
        "alone": ("alone an image has the same score, its cached values too", _alone),
        "duplicates": ("nor do duplicates among the queries", _duplicates),
        "later adapt": ("a later adapt leaves an earlier scorer as it was", _later_adapt),
        "memory": ("the same support gives the same scores, now and later", _memory),
        "support order": ("the order of the support doesn't matter", _support_order),
        "scores": ("scores differ, and random labels give an AUROC of 0.5", _usable),
    }
    if support_order_matters:
        del trials["support order"]
    needed = {"answer": "there are no scores", "repeat": "scores change from call to call"}
    return all_tried({n: (p, partial(trial, subject)) for n, (p, trial) in trials.items()}, needed=needed)


class _Subject:
    """A method with the images of its examination, and the scores that it gave first."""

    def __init__(
        self, method: Method, support: Float[Tensor, "shots 3 h w"], queries: Images, context: LocalContext
    ) -> None:
        self.method, self.support, self.queries, self.context = method, support, queries, context
        self.before = queries.clone(), support.clone()
        self.scorer: Scorer
        self.first: Given
        self.allowed: dict[str, float] = {}

    def adapted(self, support: Images, context: LocalContext) -> Scorer:
        return told("adapt", self.method, lambda: scorer_of(self.method, support, context))

    def given(self, scorer: Scorer, images: Images) -> Given:
        """What a scorer gives, every value that the method has cached being forgotten."""
        self.context.forget()
        scores = told("the scorer", self.method, lambda: scores_of(scorer, images))
        maps = {} if scores.pixel is None else {"anomaly map": scores.pixel.double().cpu().numpy()}
        return {"score": pooled_scores(scores, images.shape[-1]), **maps}

    def differ(self, given: Given, rows: list[int] | slice = slice(None)) -> bool:
        """Whether scores of some queries aren't those that were given first, up to rounding."""
        if not self.allowed:
            responses = self.given(self.scorer, perturbed(self.queries, seed=0))
            for kind, values in self.first.items():
                moved = np.abs(responses.get(kind, values) - values).ravel()
                self.allowed[kind] = allowed_difference(values.ravel(), moved)
        if given.keys() != self.first.keys():
            return True
        pairs = ((kind, values, self.first[kind][rows]) for kind, values in given.items())
        return any(a.shape != b.shape or np.abs(a - b).max() > self.allowed[kind] for kind, a, b in pairs)


def _answer(subject: _Subject) -> str:
    subject.scorer = subject.adapted(subject.support, subject.context)
    subject.first = subject.given(subject.scorer, subject.queries)
    return ""


def _input(subject: _Subject) -> str:
    same = map(torch.equal, subject.before, (subject.queries, subject.support))
    return "" if all(same) else "the method wrote into its input images. Clone them first, or compute out of place."


def _repeat(subject: _Subject) -> str:
    torch.rand(7)  # so that a generator which the method doesn't seed itself is somewhere else
    again = subject.given(subject.adapted(subject.support, subject.context), subject.queries)
    if not subject.differ(subject.given(subject.scorer, subject.queries)) and not subject.differ(again):
        return ""
    seeded = []
    for _ in range(2):
        with _seeded():
            scorer = subject.adapted(subject.support, subject.context)
            seeded.append(subject.given(scorer, subject.queries))
    if subject.differ(again) and all(np.array_equal(seeded[0][kind], seeded[1][kind]) for kind in seeded[0]):
        return (
            "the method draws random numbers that aren't the run's: with the global generators of torch, NumPy and "
            f"Python seeded alike, the same call gives the same scores, and otherwise it doesn't. {SEEDED}"
        )
    return (
        "the same call gives other scores the second time: the method remembers earlier calls (a counter, running "
        "statistics, a network in training mode), or draws random numbers that nobody seeds. Leave self and the "
        f"scorer as they were, and call .eval(). {SEEDED}"
    )


def _order(subject: _Subject) -> str:
    backwards = subject.given(subject.scorer, subject.queries.flip(0))
    return _depend(
        subject.differ({kind: values[::-1] for kind, values in backwards.items()}), "the order of the queries"
    )


def _batch(subject: _Subject) -> str:
    for size in _SIZES:
        parts = [subject.given(subject.scorer, batch) for batch in subject.queries.split(size)]
        joined = {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}
        if subject.differ(joined):
            return _depend(True, f"the batch: {len(subject.queries)} images together have other scores than {size}")
    return ""


def _alone(subject: _Subject) -> str:
    scorer = subject.adapted(subject.support, subject.context.apart(one_by_one=True))
    for row in np.linspace(0, len(subject.queries) - 1, _ALONE, dtype=int).tolist():
        if subject.differ(subject.given(scorer, subject.queries[row : row + 1]), [row]):
            return _depend(True, "the batch: alone, with cached and paired values computed one by one, they differ")
    return ""


def _duplicates(subject: _Subject) -> str:
    twice = subject.given(subject.scorer, torch.cat([subject.queries, subject.queries[:1]]))
    return _depend(subject.differ({kind: values[:-1] for kind, values in twice.items()}), "duplicates of the queries")


def _later_adapt(subject: _Subject) -> str:
    other = subject.adapted(subject.queries[: len(subject.support)], subject.context)
    subject.given(other, subject.support)
    changed = subject.differ(subject.given(subject.scorer, subject.queries))
    return _depend(changed, "a later adapt, which changed an earlier scorer: keep what adapt computes out of self")


def _memory(subject: _Subject) -> str:
    state = {name: value.clone() for name, value in told("state", subject.method, subject.method.state).items()}
    again = subject.given(subject.adapted(subject.support, subject.context), subject.queries)
    if subject.differ(again):
        return _depend(True, "what the method remembers of earlier queries and supports")
    after = subject.method.state()
    same = state.keys() == after.keys() and all(torch.equal(state[name], after[name]) for name in state)
    return "" if same else "adapt or the scorer changed what state() returns. Only pretrain and load_state may."


def _support_order(subject: _Subject) -> str:
    reordered = subject.given(subject.adapted(subject.support.flip(0), subject.context), subject.queries)
    return _depend(subject.differ(reordered), "the order of the support")


def _usable(subject: _Subject) -> str:
    """What a run checks of its scores, on labels that mean nothing."""
    index = np.arange(len(subject.queries))
    table = {"draw": 0, "index": index, "anomalous": index % 2 == 0, "score": subject.first["score"]}
    outcomes = check_scores(pd.DataFrame(table), queries=len(index), draws=1)
    return "; ".join(f"{check}: {outcome}" for check, outcome in outcomes.items() if outcome != PASSED)


@contextmanager
def _seeded() -> Iterator[None]:
    """The global generators, each from its seed 0; afterwards they go on where they were."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002 - the ones that nobody should use
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        yield
    np.random.set_state(of_numpy)  # noqa: NPY002
    random.setstate(of_python)


def _depend(do: bool, cause: str) -> str:
    return f"scores depend on {cause}" if do else ""
