"""The contract that every method has to keep, as a check that anyone can run on their own class.

A score may depend on its image, the support, the weights and the seed, and on nothing else: not on the other images of
a batch, their order or their number. Methods that smooth or scale across a batch are refused.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medfsad_bench.errors import MethodError
from medfsad_bench.method import AbnormalShotMethod, Images, Method, Scores
from medfsad_bench.results.protocol_checks import PASSED, check_scores
from medfsad_bench.runner.context import LocalContext

_RELATIVE = 1e-4  # float32 with another order of summation; a leak between images is orders of magnitude larger


def phantom_images(count: int, *, size_px: int = 64, seed: int = 0) -> Images:
    """Smooth random pictures in [0, 1], float32 (count, 3, size_px, size_px): enough to exercise a method."""
    rng = np.random.default_rng([seed, count, size_px])
    coarse = torch.from_numpy(rng.random((count, 3, 8, 8), dtype=np.float32))
    return torch.nn.functional.interpolate(coarse, (size_px, size_px), mode="bicubic").clamp(0, 1)


def check_method(
    method: Method,
    *,
    images: Images | None = None,
    shots: int = 3,
    context: LocalContext | None = None,
    support_order_matters: bool = False,
) -> None:
    """Assert the contract.

    Args:
        method: Trained or not.
        images: At least `shots` + 6 pictures; phantoms by default.
        shots: How many of them are the support.
        context: What the method is lent; a CPU context with seed 0 by default.
        support_order_matters: Declared by a method whose supports aren't exchangeable.

    Raises:
        MethodError: Naming the first clause that is broken.
    """
    context = context or LocalContext()
    images = phantom_images(shots + 9).to(context.device) if images is None else images
    if isinstance(method, AbnormalShotMethod):
        method = method.bound(phantom_images(shots, size_px=images.shape[-1], seed=1).to(context.device))
    support, queries = images[:shots], images[shots:]
    before = images.clone()
    scorer, count = method.adapt(support, context), len(queries)
    first = _given(scorer(queries))
    _clause(torch.equal(images, before), "the method wrote into its input images")
    _check_scores(first, count)
    backwards = _given(scorer(queries.flip(0)))
    _same(first, {kind: values.flip(0) for kind, values in backwards.items()}, "the order of the queries")
    for size, what in ((1, "the batch: one by one they differ"), (4, "the size of the batch")):
        parts = [_given(scorer(batch)) for batch in queries.split(size)]
        _same(first, {kind: torch.cat([part[kind] for part in parts if kind in part]) for kind in parts[0]}, what)
    twice = _given(scorer(torch.cat([queries, queries[:1]])))
    _same(first, {kind: values[:count] for kind, values in twice.items()}, "a duplicate among the queries")
    torch.rand(7)  # a method that draws from the global generator is caught by this
    again = _given(method.adapt(support, context)(queries))
    _same(first, again, "more than support and seed: the same ones give other scores")
    method.adapt(queries[:shots], context)(support)
    _same(first, _given(scorer(queries)), "a later adapt, which changed an earlier scorer")
    if not support_order_matters:
        reordered = _given(method.adapt(support.flip(0), context)(queries))
        _same(first, reordered, "the order of the support")


def _given(scores: Scores) -> dict[str, Tensor]:
    """The scores that a method gave, by kind."""
    kinds = {"image score": scores.image, "anomaly map": scores.pixel}
    return {kind: values for kind, values in kinds.items() if values is not None}


def _check_scores(scores: dict[str, Tensor], count: int) -> None:
    """Shapes, and what a run checks of its scores, on labels that mean nothing."""
    for kind, values in scores.items():
        shape, dimensions = tuple(values.shape), 1 if kind == "image score" else 3
        _clause(len(shape) == dimensions and shape[0] == count, f"{kind}s have shape {shape} for {count} images")
        _clause(bool(torch.isfinite(values).all()), f"one {kind} isn't finite")
    column = scores["image score"] if "image score" in scores else scores["anomaly map"].amax((1, 2))
    index = np.arange(count)
    table = {"draw": 0, "index": index, "anomalous": index % 2 == 0, "score": column.double().cpu().numpy()}
    for check, outcome in check_scores(pd.DataFrame(table), queries=count, draws=1).items():
        _clause(outcome == PASSED, f"protocol check, {check}: {outcome}")


def _same(scores: dict[str, Tensor], others: dict[str, Tensor], company: str) -> None:
    _clause(scores.keys() == others.keys(), f"scores depend on {company}")
    for kind, values in scores.items():
        scale = float(values.abs().max()) or 1.0
        same = values.shape == others[kind].shape
        same = same and float((values - others[kind]).abs().max()) <= _RELATIVE * scale
        _clause(same, f"scores depend on {company}")


def _clause(kept: bool, what: str) -> None:
    if not kept:
        raise MethodError(f"Contract broken: {what}.")
