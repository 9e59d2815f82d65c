"""The cache: pixels aren't brought back from a device, values are the same whatever company, and the budget is kept."""

import hashlib
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
from medfsad_bench.registry import Broken, all_methods, configure, method_info
from medfsad_bench.runner.answers import scorer_of, scores_of
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.digests import chosen, digests_of, inherit
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.images import shown, shown_images, stored_images
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.store.prepared import own_sets
from medfsad_bench.testing import phantom_images

CPU = torch.device("cpu")
PIXELS = 3 * 64 * 64  # numbers of one image
TRAINING_FREE = sorted(
    name
    for name, info in all_methods().items()
    if not (isinstance(info, Broken) or info.member or info.trains) and info.knowledge == "normals"
)


class StandInDevice(TorchFunctionMode):
    """Takes every tensor for one on a device, and counts the numbers that are brought back from there.

    A run on `STAND_IN` brings nothing back by `.to(context.device)`; `.to("cpu")` does.
    """

    STAND_IN = torch.device("cpu", 0)
    BRINGING = (
        "cpu", "numpy", "tolist", "item", "equal", "__array__", "__bool__", "__int__", "__float__", "__index__",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[int] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.BRINGING or (name == "to" and self._names_the_host(*args[1:], **(kwargs or {}))):
            self.brought.append(1 if name == "equal" else args[0].numel())
        return func(*args, **(kwargs or {}))

    def _names_the_host(self, *args: Any, device: Any = None, **_: Any) -> bool:
        return any(str(value) == "cpu" for value in (device, *args))


@pytest.mark.parametrize(
    "bring",
    [
        lambda images: images.cpu(),
        lambda images: images.to("cpu"),
        lambda images: images.to(torch.device("cpu"), torch.float64),
        lambda images: images.to(device="cpu"),
        lambda images: images.numpy(),
        lambda images: np.asarray(images),
        lambda images: images.tolist(),
        lambda images: [pixel.item() for pixel in images.flatten()],
        lambda images: [float(pixel) for pixel in images.flatten()],
    ],
)
def test_the_stand_in_counts_every_way_back(bring: Callable[[torch.Tensor], object]) -> None:
    with StandInDevice() as device:
        bring(torch.zeros(2, 3))
        torch.zeros(4).to(device.STAND_IN, torch.float64)
    assert sum(device.brought) == 6


def test_scoring_brings_scores_back_and_no_pixels(own_data: Path, tmp_path: Path) -> None:
    """Draws of a method on cached features: cold and warm, support and queries."""
    cell = cell_of(method_info("mean_distance"), own_data, tmp_path, target="ward_b")
    with opened(cell, StandInDevice.STAND_IN, FeatureCache(StandInDevice.STAND_IN), lambda *_: None) as run:
        device = StandInDevice()
        with device:
            first, again = score_draw(run, 0), score_draw(run, 0)
            score_draw(run, 1)
        queries = len(run.queries)
    np.testing.assert_array_equal(first.columns["score"], again.columns["score"])
    assert max(device.brought) <= queries < PIXELS


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_a_method_without_training_brings_no_pixels_back(name: str, own_data: Path) -> None:
    """Preset `quick` at K = 4, two draws with an empty cache and again: at most 16 numbers of each image at once.

    `chance` hashes each image's pixels, once. `whitened_patch` brings its supports' features, at 16 positions of each,
    for scikit-learn's covariance.
    """
    info, dataset = method_info(name), own_sets(own_data)[0]
    method = info.build(configure(info, preset="quick"))
    context = LocalContext(StandInDevice.STAND_IN)
    queries = shown_images(dataset, dataset.indices("test"), context.device)
    supports = [shown_images(dataset, dataset.episodes[draw][:4], context.device) for draw in range(2)]
    most = {"whitened_patch": 4 * 16 * (40 + 112)}.get(name, 16 * len(queries))
    assert most < PIXELS

    def numbers_brought() -> list[int]:
        with StandInDevice() as device:
            for support in supports:
                scores_of(scorer_of(method, support, context), queries)
        return device.brought

    cold, warm = numbers_brought(), numbers_brought()
    assert max(warm) <= most
    if name != "chance":
        assert max(cold) <= most


@pytest.mark.parametrize("copied", [lambda images: images.clone(), lambda images: images.rot90(1, (2, 3))])
def test_only_images_that_somebody_else_made_come_back(
    copied: Callable[[torch.Tensor], torch.Tensor], own_data: Path
) -> None:
    images = shown_images(own_sets(own_data)[0], np.arange(3), CPU)
    with StandInDevice() as device:
        digests_of(images)
        digests_of(chosen(images, [2, 0]))
        assert not device.brought
        digests_of(copied(images))
    assert device.brought[0] == 3 * PIXELS


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


def test_tensors_that_dont_tell_when_they_are_changed_are_hashed_each_time() -> None:
    with torch.inference_mode():
        images = phantom_images(2)
        before = digests_of(images)
        images[0] = 0
        assert digests_of(images)[0] != before[0]
        assert digests_of(chosen(images, [1])) == before[1:]


def test_images_made_in_inference_mode_are_hashed_once_for_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, sha256 = [], hashlib.sha256

    def counted(data: bytes) -> Any:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", counted)
    with torch.inference_mode():
        images = (255 * phantom_images(40)).round() / 255
        (means,) = LocalContext().cached("mean", images, lambda batch: (batch.mean((1, 2, 3)),))
    assert torch.equal(means, images.mean((1, 2, 3)))
    assert len(hashed) == 40


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
