"""Trained baselines: what they learn, what they can't see, their maps by hand, and that a run is the same each time."""

import itertools
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.covariance import oas
from test_runner import cell_of
from torch import Tensor, nn

from medfsad_baselines.inp_former import least_distances
from medfsad_baselines.parts.attention import visible_beyond
from medfsad_baselines.parts.augmentations import warped
from medfsad_baselines.parts.losses import soft_mining
from medfsad_baselines.parts.maps import shapes_of
from medfsad_baselines.parts.training import Queries, TrainedMethod
from medfsad_baselines.parts.training_images import Batch, SupportImages, partners
from medfsad_baselines.regad import Registration
from medfsad_baselines.uniad import Transformer, UniAd, jittered
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.learning import SourceImages
from medfsad_bench.method import Images
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.runner import Runner
from medfsad_bench.testing import check_method, phantom_images

METHODS = ("stfpm", "rd4ad", "regad", "uniad", "inp_former")
ON_SUPPORT = tuple(name for name in METHODS if name != "regad")
SMALL: dict[str, Any] = {"size_px": 64, "batch_size": 4}
EXTRA: dict[str, dict[str, Any]] = {"uniad": {"neighbourhood": 5, "width": 32}, "regad": {"shifts": (), "width": 32}}
CACHE = FeatureCache(torch.device("cpu"))  # features of the same pictures serve all tests


class Source:
    """Normal pictures: one pattern that varies a little. Two pictures a group."""

    def __init__(self, count: int, seed: int) -> None:
        pictures = 0.8 * phantom_images(1, seed=90 + seed) + 0.2 * phantom_images(count, seed=seed)
        self.pictures = (255 * pictures).round().to(torch.uint8)
        self.groups = torch.arange(count) // 2
        self.digest = f"synthetic {count} {seed}"

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, indices: Tensor, /) -> Tensor:
        return self.pictures[indices]


SOURCES = {"b": Source(9, 2), "a": Source(7, 1)}


def context(seed: int = 0) -> LocalContext:
    return LocalContext(seed=seed, cache=CACHE)


def built(name: str, **settings: Any) -> TrainedMethod:
    info = method_info(name)
    settings = SMALL | EXTRA.get(name, {}) | settings
    return cast(TrainedMethod, info.build(configure(info, preset="quick", settings=settings)))


def source_images(method: TrainedMethod) -> SourceImages:
    return SourceImages(SOURCES, method.settings.features, context())


def normal(count: int) -> Images:
    return SOURCES["a"].pictures[:count].float() / 255


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_and_a_planted_patch_stands_out(name: str) -> None:
    losses: list[float] = []
    lent = context()
    lent.on_progress = lambda done, total, figures: losses.append(figures["loss"]) if "loss" in figures else None
    method = built(name, steps=60, **({"learning_rate": 0.1} if name == "regad" else {}))
    method.pretrain(SOURCES, lent)
    assert len(losses) == 60
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.1 * abs(np.mean(losses[:8]))
    images = normal(5).clone()
    images[3:, :, 24:40, 24:40] = torch.from_numpy(np.random.default_rng(0).random((2, 3, 16, 16), np.float32))
    scorer = method.adapt(images[:3], lent)
    planted, clean = scorer(images[3:]).pixel, scorer(normal(5)[3:]).pixel
    assert planted is not None
    assert clean is not None
    scale = planted.shape[-1] / 64
    inside = torch.zeros_like(planted, dtype=torch.bool)
    inside[:, round(24 * scale) : round(40 * scale), round(24 * scale) : round(40 * scale)] = True
    for patched, plain, patch in zip(planted, clean, inside, strict=True):
        assert patched[patch].mean() > 1.1 * patched[~patch].mean()
        assert patched[patch].mean() > 1.2 * plain[patch].mean()


@pytest.mark.parametrize("name", METHODS)
def test_the_teacher_gets_no_gradient_and_stays_as_it_is(name: str) -> None:
    method = built(name, steps=2)
    images = source_images(method)
    before = [stage.clone() for stage in images.stages(np.arange(4))]
    network = method.network(shapes_of(before))
    batch = Batch(images, np.arange(4), np.random.default_rng(0))
    method.loss(network, batch).backward()
    assert not any(stage.requires_grad or stage.grad is not None for stage in batch.stages)
    assert all(torch.equal(a, b) for a, b in zip(before, images.stages(np.arange(4)), strict=True))
    teacher = {parameter.data_ptr() for features in CACHE._networks.values() for parameter in features.parameters()}
    assert teacher.isdisjoint(parameter.data_ptr() for parameter in network.parameters())
    assert not any(
        parameter.requires_grad for features in CACHE._networks.values() for parameter in features.parameters()
    )
    assert all(parameter.grad is not None for parameter in network.parameters()), "all that is trained gets one"


@pytest.mark.parametrize("name", METHODS)
def test_training_is_the_same_each_time_and_after_a_break(name: str) -> None:
    """Broken off at the end of the first of two epochs, saved, loaded, gone on with: bit for bit the unbroken one."""

    class Stop(Exception):
        pass

    def stop(epoch: int) -> None:
        raise Stop

    whole, again, broken, resumed = (built(name, epochs=2, steps=7) for _ in range(4))
    whole.pretrain(SOURCES, context())
    again.pretrain(SOURCES, context())
    lent = context()
    lent.on_epoch = stop
    with pytest.raises(Stop):
        broken.pretrain(SOURCES, lent)
    resumed.load_state(broken.state())
    assert int(resumed.state()["counters"][1]) == 4, "16 images, 4 a step"
    resumed.pretrain(SOURCES, context())
    for other in (again, resumed):
        state = other.state()
        assert state.keys() == whole.state().keys()
        assert all(torch.equal(value, state[key]) for key, value in whole.state().items())
    other = built(name, epochs=2, steps=7)
    other.pretrain(SOURCES, context(seed=1))
    assert any(not torch.equal(value, other.state()[key]) for key, value in whole.state().items())


@pytest.mark.parametrize("name", ON_SUPPORT)
def test_trained_on_its_support_a_method_keeps_the_contract(name: str) -> None:
    method = built(name, trained_on="support", support_steps=2, **({"depths": (1, 1, 1, 1)} if name == "rd4ad" else {}))
    check_method(method, context=LocalContext(cache=CACHE))
    method.pretrain(SOURCES, context())
    assert method.state() == {}, "the sources taught nothing"


@pytest.mark.parametrize("name", ON_SUPPORT)
def test_trained_on_sources_the_map_of_a_query_is_made_once_for_all_draws(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, lent, passes = built(name, steps=1), context(), []
    method.pretrain(SOURCES, lent)
    maps = method.maps

    def counted(network: nn.Module, queries: Queries) -> Tensor:
        passes.append(len(queries.images))
        return maps(network, queries)

    monkeypatch.setattr(method, "maps", counted)
    first = method.adapt(normal(2), lent)(normal(5))
    after_first = len(passes)
    second = method.adapt(normal(4), lent)(normal(5))
    assert len(passes) == after_first > 0
    assert first.pixel is not None
    assert second.pixel is not None
    assert torch.equal(first.pixel, second.pixel)
    method.load_state({**method.state()})
    method.adapt(normal(2), lent)(normal(5))
    assert len(passes) == 2 * after_first, "other weights, other maps"


def test_a_method_trained_on_its_support_has_no_sources_and_needs_none(own_data: Path, tmp_path: Path) -> None:
    small = SMALL | {"support_steps": 1, "steps": 1, "depths": (1, 1, 1, 1)}
    info = method_info("rd4ad")
    on_sources = cell_of(info, own_data, tmp_path, settings=small)
    cell = cell_of(info, own_data, tmp_path, settings=small | {"trained_on": "support"}, draws=1)
    assert [source.name for source in on_sources.sources] == ["ward_b"]
    assert cell.sources == ()
    assert not cell.absent
    row, _ = Runner("cpu").run(cell)
    assert row.sources == {}
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(MethodError, match="learnt from other sets"):
        built("regad", trained_on="support")


def test_a_checkpoint_is_not_run_on_a_set_that_it_has_seen(own_data: Path, tmp_path: Path) -> None:
    small = SMALL | {"steps": 1, "depths": (1, 1, 1, 1)}
    info = method_info("rd4ad")
    cell = cell_of(info, own_data, tmp_path, settings=small, draws=1)
    Runner("cpu").run(cell)
    (state,) = (tmp_path / "checkpoints" / cell.training_id).glob("*.safetensors")
    for target, refused in (("ward_b", True), ("ward_a", False)):
        other = cell_of(info, own_data, tmp_path / "b", target=target, settings=small, draws=1, checkpoint=state)
        if refused:
            with pytest.raises(WeightsError, match="was trained on 'ward_b', which is the target now"):
                Runner("cpu").run(other)
        else:
            Runner("cpu").run(other)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    small, large = (built("rd4ad", steps=1, depths=(1, 1, 1, depth)) for depth in (1, 2))
    small.pretrain(SOURCES, context())
    with pytest.raises(WeightsError, match="doesn't fit"):
        large.load_state(small.state())
    with pytest.raises(WeightsError, match="no state of UniAd"):
        built("uniad").load_state({"other": torch.zeros(1)})
    other_size = built("rd4ad", steps=1, depths=(1, 1, 1, 1), size_px=None)
    other_size.load_state(small.state())
    with pytest.raises(MethodError, match="was trained on feature maps of"):
        other_size.adapt(phantom_images(2, size_px=96), context())


@pytest.mark.parametrize("name", ["rd4ad", "stfpm"])
def test_maps_are_the_sum_or_product_of_the_stages_cosine_distances_step_by_step(name: str) -> None:
    method = built(name, steps=2)
    method.pretrain(SOURCES, context())
    images = normal(2)
    maps = method.adapt(images, context())(images).pixel
    stages = context().features(method.settings.features, images)
    training = method._training
    assert training is not None
    with torch.no_grad():
        estimates = training.network(images if name == "stfpm" else stages)
    for number in range(2):
        expected = np.zeros((64, 64)) if name == "rd4ad" else np.ones((64, 64))
        for a, b in zip(stages, estimates, strict=True):
            a_, b_ = (stage[number].double().numpy() for stage in (a, b))
            small = np.empty(a_.shape[1:])
            for y, x in np.ndindex(*small.shape):
                p, q = a_[:, y, x], b_[:, y, x]
                small[y, x] = 1 - p @ q / np.sqrt((p @ p) * (q @ q))
            large = by_hand_enlarged(small, 64)
            expected = expected + large if name == "rd4ad" else expected * large
        assert maps is not None
        assert maps[number].double().numpy() == pytest.approx(expected, rel=1e-3, abs=1e-5)


def by_hand_enlarged(small: np.ndarray, edge: int) -> np.ndarray:
    """Bilinear between the centres of pixels."""
    large = np.empty((edge, edge))
    for y, x in np.ndindex(edge, edge):
        row, column = (min(max((pixel + 0.5) * len(small) / edge - 0.5, 0), len(small) - 1) for pixel in (y, x))
        top, left = int(row), int(column)
        low, right = min(top + 1, len(small) - 1), min(left + 1, len(small) - 1)
        v, u = row - top, column - left
        large[y, x] = (1 - v) * ((1 - u) * small[top, left] + u * small[top, right]) + v * (
            (1 - u) * small[low, left] + u * small[low, right]
        )
    return large


def test_a_token_sees_none_of_its_neighbourhood() -> None:
    visible = visible_beyond(6, 3)
    for token, other in itertools.product(range(36), repeat=2):
        (y, x), (v, u) = divmod(token, 6), divmod(other, 6)
        assert bool(visible[token, other]) == (abs(y - v) > 1 or abs(x - u) > 1)
    with pytest.raises(MethodError, match="hides the whole grid"):
        visible_beyond(4, 7)


def test_the_neighbour_mask_keeps_a_token_from_its_own_reconstruction() -> None:
    """One attention away from the tokens; without the mask the reconstruction does change."""
    method = cast(UniAd, built("uniad", layers=1, neighbourhood=3))
    torch.manual_seed(0)
    network = Transformer(5, 8, method.config).eval()
    network.encoder = nn.ModuleList()
    tokens = torch.randn(1, 64, 5)
    own, beside, far = 27, 28, 60
    changed = {position: tokens.clone() for position in (own, beside, far)}
    for position, other in changed.items():
        other[0, position] += 3
    plain = network(tokens)[0, own]
    assert torch.equal(plain, network(changed[own])[0, own])
    assert torch.equal(plain, network(changed[beside])[0, own])
    assert not torch.allclose(plain, network(changed[far])[0, own], atol=1e-3)
    network.visible = torch.ones_like(network.visible)
    assert not torch.allclose(network(tokens)[0, own], network(changed[own])[0, own], atol=1e-3)


def test_jitter_is_as_large_as_the_token_times_alpha_over_its_channels() -> None:
    tokens = torch.tensor([[[3.0, 4.0]]])
    assert jittered(tokens, torch.tensor([[[1.0, -2.0]]]), alpha=0.4)[0, 0].tolist() == pytest.approx([4.0, 2.0])
    assert torch.equal(jittered(tokens, torch.ones(1, 1, 2), alpha=0), tokens)


def test_prototypes_are_near_and_soft_mining_weights_gradients_by_distance() -> None:
    tokens, prototypes = torch.randn(2, 9, 4), torch.randn(2, 3, 4)
    for image, token in itertools.product(range(2), range(9)):
        cosines = torch.cosine_similarity(tokens[image, token][None], prototypes[image])
        assert float(least_distances(tokens, prototypes)[image, token]) == pytest.approx(
            1 - float(cosines.max()), abs=1e-5
        )
    gradients = {}
    for gamma in (0.0, 3.0):
        rebuilt = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        loss = soft_mining(tokens[:1], rebuilt, gamma)
        plain = 1 - torch.cosine_similarity(tokens[:1].flatten(1), rebuilt.flatten(1))
        assert float(loss.detach()) == pytest.approx(float(plain.detach()), abs=1e-6), "mining changes no value"
        (gradients[gamma],) = torch.autograd.grad(loss, rebuilt)
    distance = 1 - torch.cosine_similarity(tokens[:1], rebuilt.detach(), dim=-1)
    ratio = (distance / distance.mean()) ** 3
    assert gradients[3.0].numpy() == pytest.approx((ratio[..., None] * gradients[0.0]).numpy(), rel=1e-3, abs=1e-7)


def test_regads_gaussian_is_that_of_numpy() -> None:
    """Untrained, so nothing is turned: the Mahalanobis distance of plain features at each position."""
    method = built("regad", rotations=(), shifts=(), quarter_turns=True)
    images = normal(5)
    maps = method.adapt(images[:2], context())(images[2:]).pixel
    assert maps is not None
    augmented = torch.cat([images[:2].rot90(turns, (2, 3)) for turns in range(4)])
    fine, coarse = context().features(method.settings.features, torch.cat([augmented, images[2:]]))
    coarse = torch.nn.functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
    grid = torch.cat([fine, coarse], dim=1).double().numpy()
    for y, x in ((0, 0), (3, 4), (7, 2)):
        vectors = grid[:8, :, y, x]
        covariance = oas(vectors)[0] + 0.01 * np.eye(vectors.shape[1])
        for number in range(3):
            difference = grid[8 + number, :, y, x] - vectors.mean(0)
            expected = np.sqrt(difference @ np.linalg.solve(covariance, difference))
            assert float(maps[number, y, x]) == pytest.approx(expected, rel=1e-3)


def test_a_transformation_and_its_inverse_bring_a_map_back() -> None:
    torch.manual_seed(0)
    network = Registration([(4, 8, 8)], 8)
    assert torch.allclose(network.transformation(torch.randn(2, 4, 8, 8)), torch.eye(2)), "none at first"
    nn.init.normal_(cast(nn.Linear, network.locate[-1]).weight, std=2.0)
    turns = network.transformation(torch.randn(3, 4, 8, 8))
    scale = torch.linalg.det(turns).sqrt()
    assert ((scale > 1 / 1.5 - 1e-6) & (scale < 1.5 + 1e-6)).all()
    assert torch.allclose(turns @ turns.mT, scale.square()[:, None, None] * torch.eye(2), atol=1e-5), "turn and scale"
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    pictures = (x + 2 * y).expand(3, 1, 64, 64)
    back = warped(warped(pictures, turns), torch.linalg.inv(turns))
    assert (back - pictures)[..., 24:40, 24:40].abs().max() < 0.05
    assert (warped(pictures, turns) - pictures)[..., 24:40, 24:40].abs().max() > 0.05


def test_partners_are_of_the_same_set_and_of_another_group() -> None:
    images = source_images(built("regad"))
    rng = np.random.default_rng(0)
    for _ in range(5):
        drawn = partners(images, np.arange(len(images)), rng)
        assert (images.source[drawn] == images.source).all()
        assert (images.group[drawn] != images.group).all()
    images.group = np.zeros(len(images), np.int64)
    with pytest.raises(MethodError, match="one group of images"):
        partners(images, np.arange(2), rng)


def test_the_support_is_trained_on_in_one_order() -> None:
    support = normal(4)
    first, second = (
        SupportImages(part, built("rd4ad").settings.features, context()) for part in (support, support.flip(0))
    )
    assert torch.equal(first.images(np.arange(4)), second.images(np.arange(4)))


PAPER_STAGES = {
    "rd4ad": [(256, 16, 16), (512, 8, 8), (1024, 4, 4)],  # a Wide ResNet-50-2 at 64 px
    "regad": [(64, 16, 16), (128, 8, 8), (256, 4, 4)],  # a ResNet-18
    "uniad": [(24, 112, 112), (32, 56, 56), (56, 28, 28), (160, 14, 14)],  # an EfficientNet-b4
    "inp_former": [(768, 4, 4)] * 8,  # a ViT-B/14
}


@pytest.mark.parametrize("name", PAPER_STAGES)
def test_the_papers_settings_make_a_network_for_its_own_backbone(name: str) -> None:
    method = cast(
        TrainedMethod,
        method_info(name).build(configure(method_info(name), settings={"layers": 2} if name == "inp_former" else {})),
    )
    stages = tuple(torch.rand(2, *shape) for shape in PAPER_STAGES[name])
    network: Any = method.network(PAPER_STAGES[name]).eval()
    if name == "regad":
        assert network.transformation(stages[-1]).shape == (2, 2, 2)
        return
    with torch.no_grad():
        maps = method.maps(network, Queries(normal(2), stages))
    assert maps.shape[0] == 2
    assert not torch.equal(maps[0], maps[1])


def test_inp_former_runs_on_a_transformer_with_its_blocks_summed_in_two_groups() -> None:
    settings = {"backbone": "random:vit_tiny_patch16_224", "stages": (8, 9, 10, 11), "steps": 2, "heads": 4}
    method = built("inp_former", **settings)
    method.pretrain(SOURCES, context())
    maps = method.adapt(normal(2), context())(normal(3)).pixel
    assert maps is not None
    assert maps.shape == (3, 4, 4)
    training = method._training
    assert training is not None
    assert training.network.channels == [192, 192]
    with pytest.raises(MethodError, match="multiples of groups"):
        built("inp_former", stages=(1, 2, 3))
