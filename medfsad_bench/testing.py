"""The contract that every method has to keep, as a check that anyone can run on their own class.

A score may depend on its image, the support, the weights and the seed, and on nothing else: not on the other images of
a batch, their order or their number. Methods that smooth or scale across a batch are refused.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medfsad_bench.errors import MethodError
from medfsad_bench.method import AbnormalShotMethod, Images, Method, Scorer, Scores
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
    scorer = method.adapt(support, context)
    first = scorer(queries)
    _clause(torch.equal(images, before), "the method wrote into its input images")
    count = len(queries)
    _check_scores(first, count)
    order = torch.arange(count - 1, -1, -1)
    _same(first, _picked(scorer(queries[order]), order), "scores depend on the order of the queries")
    _same(first, _batched(scorer, queries, 1), "scores depend on the batch: one by one they differ")
    _same(first, _batched(scorer, queries, 4), "scores depend on the size of the batch")
    twice = scorer(torch.cat([queries, queries[:1]]))
    _same(first, _picked(twice, torch.arange(count)), "scores depend on a duplicate among the queries")
    torch.rand(7)  # a method that draws from the global generator is caught by this
    _same(first, method.adapt(support, context)(queries), "the same support and seed give other scores")
    method.adapt(queries[:shots], context)(support)
    _same(first, scorer(queries), "an earlier scorer was changed by a later adapt")
    if not support_order_matters:
        _same(first, method.adapt(support.flip(0), context)(queries), "scores depend on the order of the support")


def _check_scores(scores: Scores, count: int) -> None:
    """Shapes, and what a run checks of its scores, on labels that mean nothing."""
    for kind, values, dimensions in (("image score", scores.image, 1), ("anomaly map", scores.pixel, 3)):
        if values is not None:
            shape = tuple(values.shape)
            _clause(len(shape) == dimensions and shape[0] == count, f"{kind}s have shape {shape} for {count} images")
            _clause(bool(torch.isfinite(values).all()), f"one {kind} isn't finite")
    values = scores.image
    if values is None and scores.pixel is not None:
        values = scores.pixel.amax((1, 2))
    index = np.arange(count)
    column = None if values is None else values.double().cpu().numpy()
    table = pd.DataFrame({"draw": 0, "index": index, "anomalous": index % 2 == 0, "score": column})
    for check, outcome in check_scores(table, queries=count, draws=1).items():
        _clause(outcome == PASSED, f"protocol check, {check}: {outcome}")


def _same(a: Scores, b: Scores, what: str) -> None:
    for values, others in ((a.image, b.image), (a.pixel, b.pixel)):
        if values is None or others is None:
            _clause(values is others, what)
            continue
        scale = float(values.abs().max()) or 1.0
        _clause(values.shape == others.shape and float((values - others).abs().max()) <= _RELATIVE * scale, what)


def _picked(scores: Scores, positions: Tensor) -> Scores:
    return Scores(
        image=None if scores.image is None else scores.image[positions],
        pixel=None if scores.pixel is None else scores.pixel[positions],
    )


def _batched(scorer: Scorer, queries: Images, size: int) -> Scores:
    parts = [scorer(queries[start : start + size]) for start in range(0, len(queries), size)]
    image = [part.image for part in parts if part.image is not None]
    pixel = [part.pixel for part in parts if part.pixel is not None]
    return Scores(image=torch.cat(image) if image else None, pixel=torch.cat(pixel) if pixel else None)


def _clause(kept: bool, what: str) -> None:
    if not kept:
        raise MethodError(f"Contract broken: {what}.")
