"""The training-free baselines over several stages, against the slow text of their definitions.

Both outputs of each, the image score and the map, are computed anew in NumPy from the features of the frozen network.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from medfsad_baselines.late_fusion import fuse
from medfsad_baselines.parts.maps import top_mean
from medfsad_baselines.parts.patches import unit_grid
from medfsad_baselines.subspace import principal_subspace, residuals
from medfsad_baselines.whitened_patch import whitener
from medfsad_bench.errors import MethodError
from medfsad_bench.method import Backbone, Scores
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.frozen import load_backbone
from medfsad_bench.testing import check_method, phantom_images

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("multistage", "late_fusion", "subspace", "whitened_patch", "pooled_and_patch")
IMAGES = phantom_images(9, size_px=96)
SUPPORT, QUERIES = IMAGES[:3], IMAGES[3:]
NETWORK = LocalContext()  # of the references; a method has one of its own


def scored(name: str, support: Tensor = SUPPORT, **settings: object) -> Scores:
    info = method_info(name)
    method = info.build(configure(info, preset="quick", settings=settings))
    return method.adapt(support, LocalContext())(QUERIES)


def stages_of(images: Tensor, stages: Sequence[int]) -> list[np.ndarray]:
    """Feature maps, channels last, in float64."""
    maps = NETWORK.features(Backbone(stages=tuple(stages)), images)
    return [stage.permute(0, 2, 3, 1).double().numpy() for stage in maps]


def on_grid(stage: np.ndarray, edge: int) -> np.ndarray:
    """A stage averaged over blocks, or interpolated half-way between pixel centres, on a grid of edge × edge."""
    if stage.shape[1] > edge:
        block = stage.shape[1] // edge
        return stage.reshape(len(stage), edge, block, edge, block, -1).mean((2, 4))
    centres = np.clip((np.arange(edge) + 0.5) * stage.shape[1] / edge - 0.5, 0, stage.shape[1] - 1)
    low = np.minimum(centres.astype(int), stage.shape[1] - 2)
    part = centres - low
    rows = stage[:, low] * (1 - part)[None, :, None, None] + stage[:, low + 1] * part[None, :, None, None]
    return rows[:, :, low] * (1 - part)[None, None, :, None] + rows[:, :, low + 1] * part[None, None, :, None]


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def nearest(vectors: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Distance of each vector to the nearest of the bank, all pairs written out."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    distances = [min(np.linalg.norm(bank.reshape(-1, bank.shape[-1]) - vector, axis=1)) for vector in flat]
    return np.array(distances).reshape(vectors.shape[:-1])


def highest(maps: np.ndarray, fraction: float) -> np.ndarray:
    flat = np.sort(maps.reshape(len(maps), -1), axis=1)[:, ::-1]
    return np.asarray(flat[:, : max(1, round(fraction * flat.shape[1]))].mean(1))


def assert_near(given: Tensor | None, expected: np.ndarray, *, rtol: float = 1e-7, atol: float = 0.0) -> None:
    assert given is not None
    np.testing.assert_allclose(given.numpy(), expected, rtol=rtol, atol=atol)


def multistage_maps(queries: Tensor, support: Tensor) -> np.ndarray:
    def vectors(images: Tensor) -> np.ndarray:
        stages = stages_of(images, (2, 3, 4))
        edge = stages[1].shape[1]
        return np.concatenate([unit(on_grid(stage, edge)) for stage in stages], axis=-1) / np.sqrt(3)

    return nearest(vectors(queries), vectors(support))


def test_multistage_is_the_nearest_joined_vector_and_the_mean_of_the_highest() -> None:
    scores, expected = scored("multistage"), multistage_maps(QUERIES, SUPPORT)
    assert_near(scores.pixel, expected, atol=2e-5)
    assert_near(scores.image, highest(expected, 0.05), atol=2e-5)


def test_late_fusion_is_the_mean_of_each_stages_own_neighbours() -> None:
    maps = []
    for queries, support in zip(stages_of(QUERIES, (2, 3, 4)), stages_of(SUPPORT, (2, 3, 4)), strict=True):
        maps.append(on_grid(nearest(unit(queries), unit(support))[..., None], 12)[..., 0])
    expected = np.mean(maps, axis=0)
    scores = scored("late_fusion")
    assert_near(scores.pixel, expected, atol=5e-5)
    assert_near(scores.image, highest(expected, 0.05), atol=5e-5)


def test_a_scale_can_be_looked_at_by_itself() -> None:
    single = scored("late_fusion", stages="3")
    (queries,), (support,) = stages_of(QUERIES, (3,)), stages_of(SUPPORT, (3,))
    assert_near(single.pixel, nearest(unit(queries), unit(support)), atol=5e-5)


def test_maps_of_scales_are_fused_on_the_finest_grid() -> None:
    fused = fuse([torch.full((1, 2, 2), 4.0), torch.arange(16.0).view(1, 4, 4)])
    assert torch.equal(fused, (4 + torch.arange(16.0).view(1, 4, 4)) / 2)


@pytest.mark.parametrize(("kept", "fraction"), [(0.8, 0.01), (0.95, 0.1)])
def test_subspace_is_what_scikit_learns_components_leave_over(kept: float, fraction: float) -> None:
    (queries,), (support,) = stages_of(QUERIES, (3,)), stages_of(SUPPORT, (3,))
    pca = PCA(n_components=kept, svd_solver="full").fit(support.reshape(-1, support.shape[-1]))
    flat = queries.reshape(-1, queries.shape[-1])
    expected = np.square(flat - pca.inverse_transform(pca.transform(flat))).sum(1).reshape(queries.shape[:3])
    scores = scored("subspace", kept=kept, top_fraction=fraction)
    assert_near(scores.pixel, expected, rtol=1e-4, atol=1e-4)
    assert_near(scores.image, highest(expected, fraction), rtol=1e-4)


def test_a_subspace_of_equal_patches_has_no_component() -> None:
    mean, components = principal_subspace(torch.full((5, 3), 2.0).double(), 0.9)
    assert components.shape == (3, 0)
    assert residuals(torch.tensor([[3.0, 2.0, 4.0]]).double() - mean, components).tolist() == [5.0]


def test_subspace_says_which_layers_it_cant_average() -> None:
    with pytest.raises(MethodError, match="one shape"):
        scored("subspace", stages="2,3")


def shrunk_covariance(rows: np.ndarray) -> np.ndarray:
    """Oracle approximating shrinkage, without the terms in 2/d, as scikit-learn has it."""
    covariance, (count, width) = np.cov(rows.T, bias=True), rows.shape
    trace, squares = np.trace(covariance), np.trace(covariance @ covariance)
    share = min(1, (squares + trace**2) / ((count + 1) * (squares - trace**2 / width)))
    return np.asarray((1 - share) * covariance + share * trace / width * np.eye(width))


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_whitened_patch_is_the_mahalanobis_distance_of_two_patches(fraction: float) -> None:
    def vectors(images: Tensor) -> np.ndarray:
        fine, coarse = stages_of(images, (2, 3))
        halves = fine.reshape(len(fine), *(size for edge in coarse.shape[1:3] for size in (edge, 2)), -1)
        return np.concatenate([halves.mean((2, 4)), coarse], axis=-1)

    queries, support = vectors(QUERIES), vectors(SUPPORT)
    bank = support.reshape(-1, support.shape[-1])
    inverse = np.linalg.inv(shrunk_covariance(bank))
    expected = np.empty(queries.shape[:3])
    for position in itertools.product(*map(range, expected.shape)):
        differences = bank - queries[position]
        expected[position] = np.sqrt((differences @ inverse * differences).sum(1).min())
    scores = scored("whitened_patch", top_fraction=fraction)
    assert_near(scores.pixel, expected, rtol=1e-4)
    assert_near(scores.image, highest(expected, fraction), rtol=1e-4)


def test_whitening_leaves_equal_patches_as_they_are() -> None:
    assert torch.equal(whitener(torch.full((6, 3), 2.0).double()), torch.eye(3).double())


def test_pooled_and_patch_are_each_one_for_a_left_out_support() -> None:
    pooled = stages_of(SUPPORT, (4,))[0].mean((1, 2))
    rest = [[other for other in range(3) if other != index] for index in range(3)]
    pooled_scale = np.mean([np.linalg.norm(pooled[i] - pooled[rest[i]].mean(0)) for i in range(3)])
    left_out = [highest(multistage_maps(SUPPORT[i : i + 1], SUPPORT[rest[i]]), 0.05)[0] for i in range(3)]
    of_query = np.linalg.norm(stages_of(QUERIES, (4,))[0].mean((1, 2)) - pooled.mean(0), axis=1) / pooled_scale
    maps = multistage_maps(QUERIES, SUPPORT) / np.mean(left_out)
    patches = highest(maps, 0.05)
    scores = scored("pooled_and_patch")
    assert_near(scores.pixel, maps, rtol=1e-4)
    assert_near(scores.image, (of_query + patches) / 2, rtol=1e-4)
    assert_near(scored("pooled_and_patch", pooled_share=0).image, patches, rtol=1e-4)


def test_pooled_and_patch_asks_for_two_supports() -> None:
    with pytest.raises(MethodError, match="2 shots or more"):
        scored("pooled_and_patch", SUPPORT[:1])


def test_equal_supports_divide_by_nothing() -> None:
    scores = scored("pooled_and_patch", SUPPORT[:1].expand(2, -1, -1, -1))
    assert scores.image is not None
    assert bool(torch.isfinite(scores.image).all())


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_keep_the_contract(name: str) -> None:
    info = method_info(name)
    check_method(info.build(configure(info, preset="quick")))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("fraction", ["0", "1.5"])
def test_a_fraction_of_the_map_is_one(name: str, fraction: str) -> None:
    with pytest.raises(MethodError, match="top_fraction"):
        configure(method_info(name), preset="quick", settings={"top_fraction": fraction})


@pytest.mark.parametrize(
    ("given", "expected"), [("2,3", (2, 3)), ("0.5,1.0", (0.5, 1.0)), ("-1", (-1,)), ("1", (1,)), ([0.5], (0.5,))]
)
def test_stages_are_numbers_or_parts_of_the_depth(given: Any, expected: tuple[float, ...]) -> None:
    stages = configure(method_info("multistage"), settings={"stages": given}).stages
    assert stages == expected
    assert list(map(type, stages)) == list(map(type, expected))


def test_parts_of_the_depth_are_stages() -> None:
    """EfficientNet-Lite0 has five."""
    context = LocalContext()
    by_depth = context.features(Backbone(stages=(0.2, 0.6, 1.0)), QUERIES)
    by_number = context.features(Backbone(stages=(0, 2, 4)), QUERIES)
    assert all(torch.equal(first, second) for first, second in zip(by_depth, by_number, strict=True))


def test_every_stage_weighs_the_same_whatever_its_width_and_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.randn(2, 5, 8, 8, generator=generator), 100 * torch.randn(2, 40, 4, 4, generator=generator)
    grid = unit_grid([fine, coarse])
    assert grid.shape == (2, 4, 4, 45)
    torch.testing.assert_close(grid[..., :5].norm(dim=-1), torch.full((2, 4, 4), 0.5**0.5))
    torch.testing.assert_close(grid.norm(dim=-1), torch.ones(2, 4, 4))
    averaged = functional.normalize(functional.avg_pool2d(fine, 2), dim=1).permute(0, 2, 3, 1) / 2**0.5
    torch.testing.assert_close(grid[..., :5], averaged)


def test_the_mean_of_the_highest_takes_one_position_at_least() -> None:
    maps = torch.arange(16.0).view(1, 4, 4)
    assert top_mean(maps, 0.01).tolist() == [15.0]
    assert top_mean(maps, 0.25).tolist() == [13.5]


@pytest.mark.parametrize("name", ["multistage", "patchcore"])
def test_the_cost_of_a_method_is_of_its_network_and_not_of_its_support(name: str) -> None:
    """Whether it looks at the support when it adapts, or when the first image comes."""
    command = [sys.executable, str(ROOT / "baselines" / "tables.py"), "one-cost", name]
    cost = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    network = load_backbone(Backbone("efficientnet_lite0", (2, 3, 4)), torch.device("cpu"))
    assert cost["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 256, 256))
    assert 1 <= cost["flops"] / counter.get_total_flops() < 1.3, "and the search"
