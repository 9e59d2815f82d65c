"""The cache: pixels aren't brought back from a device, values are the same whatever company, and the budget is kept."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_runner import cell_of
from torch.overrides import TorchFunctionMode

from medfsad_bench.errors import MethodError
from medfsad_bench.registry import method_info
from medfsad_bench.runner.digests import digests_of, inherit
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.images import shown, stored_images
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.store.prepared import own_sets
from medfsad_bench.testing import phantom_images

CPU = torch.device("cpu")


class StandInDevice(TorchFunctionMode):
    """Takes every tensor for one on a device, and counts the numbers that are brought back from there."""

    BRINGING = ("cpu", "numpy", "tolist", "item", "__array__", "__bool__", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[int] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.BRINGING and args and isinstance(args[0], torch.Tensor):
            self.brought.append(1 if name == "equal" else args[0].numel())
        return func(*args, **(kwargs or {}))


def test_scoring_brings_scores_back_and_no_pixels(own_data: Path, tmp_path: Path) -> None:
    """Ten draws of a method on cached features: cold and warm, support and queries."""
    cell = cell_of(method_info("mean_distance"), own_data, tmp_path, target="ward_b")
    with opened(cell, CPU, FeatureCache(CPU), lambda *_: None) as run:
        device = StandInDevice()
        with device:
            first, again = score_draw(run, 0), score_draw(run, 0)
            score_draw(run, 1)
        queries = len(run.queries)
    np.testing.assert_array_equal(first.columns["score"], again.columns["score"])
    assert max(device.brought) <= queries, "not even one image of 64 px, which has 12,288 numbers"


def test_an_image_has_one_digest_as_stored_as_shown_and_made_anew(own_data: Path) -> None:
    dataset = own_sets(own_data)[0]
    stored = stored_images(dataset, np.arange(5), CPU)
    images = shown(stored, torch.tensor([3, 1]))
    expected = digests_of(stored[[3, 1]].numpy())
    assert digests_of(images) == expected
    assert digests_of(images.clone()) == expected, "unknown, and hashed as what it was made of"
    assert digests_of(stored.clone()[[3, 1]]) == expected
    changed = images.clone()
    changed[1] += 1e-3
    assert digests_of(changed)[0] == expected[0]
    assert digests_of(changed)[1] != expected[1]
    images[0] = 0
    assert digests_of(images)[0] != expected[0], "a tensor that was changed in place is hashed again"


def test_digests_end_with_their_tensor() -> None:
    images, given = phantom_images(1), np.zeros((1, 3, 64, 64), np.uint8)
    inherit(images, given)
    assert digests_of(images) == digests_of(given)
    assert digests_of(phantom_images(1)) != digests_of(given)


def products(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return images[:, None, 0, 0] * others[None, :, 0, 0]


def test_what_is_cached_is_what_was_computed_in_any_company_and_within_any_budget() -> None:
    """Sums of images and pairs, asked for in random company, against the plain computation."""
    rng = np.random.default_rng(0)
    images, computed = phantom_images(23, size_px=16), 0

    def sums(batch: torch.Tensor) -> list[torch.Tensor]:
        nonlocal computed
        computed += len(batch)
        return [batch.sum((1, 2, 3)), batch[:, 0, :2]]

    for budget in (8 << 30, 2_000, 0):
        cache, computed = FeatureCache(CPU, budget_bytes=budget), 0
        for _ in range(30):
            rows = torch.from_numpy(rng.integers(0, 23, rng.integers(1, 12)))
            total, corner = cache.cached("sums", images[rows], sums)
            assert torch.equal(total, images[rows].sum((1, 2, 3)))
            assert torch.equal(corner, images[rows][:, 0, :2])
            total += 1  # a method may do with it what it likes
            others = images[rng.integers(0, 23, 3)]
            pairs = cache.paired("products", images[rows], others, partial(products, images[rows]))
            assert torch.equal(pairs, products(images[rows], others))
            assert cache._bytes <= budget
            assert budget or not cache._placed
        if budget > 2_000:
            assert computed <= 23 * 8, "each image once, in chunks of eight"


def test_a_method_that_computes_too_few_rows_is_told() -> None:
    cache, images = FeatureCache(CPU), phantom_images(3)
    with pytest.raises(MethodError, match="1 rows for 3 images"):
        cache.cached("mean", images, lambda batch: [batch.mean(0, keepdim=True)])
    with pytest.raises(MethodError, match="3 rows for 6 images"):
        cache.paired("mean", images, images[:2], lambda some: images.mean((2, 3))[:, None])


def test_a_lower_budget_lets_go_what_is_held() -> None:
    cache, images, computed = FeatureCache(CPU), phantom_images(9, size_px=16), []

    def sums(batch: torch.Tensor) -> list[torch.Tensor]:
        computed.append(len(batch))
        return [batch.sum((1, 2, 3))]

    before = cache.cached("sums", images, sums)[0]
    cache.keep_at_most(0)
    assert not cache._placed
    assert torch.equal(cache.cached("sums", images, sums)[0], before)
    assert len(computed) == 4, "two chunks of eight, and once more"
