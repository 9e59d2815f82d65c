"""Where there is no GPU: every method on a stand-in for one, and on torch's fake tensors where that works.

Both refuse an operation on tensors of two devices, as CUDA does. What each of them can't tell stands in
`stand_in_gpu`; real GPUs are asked by `test_gpu.py`.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import pytest
import torch
from stand_in_gpu import GPU, OnGpu, stand_in_gpu
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from medfsad_baselines.parts import clip, clip_prompts, clip_weights
from medfsad_bench.errors import MedfsadError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import AbnormalShotMethod, Backbone, Images, Method, RunContext, Scorer, Scores
from medfsad_bench.registry import Broken, all_methods, configure, method_info
from medfsad_bench.runner import features
from medfsad_bench.runner.answers import scorer_of, scores_of
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.frozen import Features, counted, load_backbone
from medfsad_bench.runner.weights import bare_network
from medfsad_bench.testing import phantom_images
from medfsad_bench.testing.phantoms import PhantomSource

METHODS = [name for name, info in all_methods().items() if not isinstance(info, Broken) and not info.member]
TRAINED = [name for name in METHODS if method_info(name).trains]
UNTRAINED = sorted(set(METHODS) - set(TRAINED))

_NUMBER, _ARRAY = "_local_scalar_dense", r"\.numpy\(\) is not supported"
NOT_FAKE = {  # by name, what torch says where a value is looked at: fake tensors have none
    "chance": _ARRAY,  # it hashes pixels
    "inctrl": _NUMBER,  # CLIP's temperature
    "mediclip": _NUMBER,  # CLIP's temperature, and where lesions lie
    "mvfa": _NUMBER,  # CLIP's temperature
    "patchcore": _NUMBER,  # which patch is the worst
    "pooled_and_patch": _NUMBER,  # whether its scale is positive
    "subspace": _NUMBER,  # how many components it keeps
    "uniad": _NUMBER,  # whether each token sees another
    "whitened_patch": _ARRAY,  # scikit-learn's covariance
    "winclip": _NUMBER,  # CLIP's temperature
}


@pytest.fixture
def clip_of_its_own() -> Iterator[None]:
    """CLIP is loaded anew: one that other tests have loaded stays where it is, and they get none that is fake."""
    loaded: tuple[Any, ...] = (clip._loaded, clip_weights.loaded_network, clip_prompts._state_embeddings)
    for cached in loaded:
        cached.cache_clear()
    yield
    for cached in loaded:
        cached.cache_clear()


@pytest.fixture
def gpu(clip_of_its_own: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The stand-in."""
    load_backbone(Backbone("efficientnet_lite0"), torch.device("cpu"))  # reads its weights
    monkeypatch.setattr(features, "_CUDA_CHUNK", 4)
    with stand_in_gpu() as device:
        yield device


def small(name: str, *, steps: int = 1) -> tuple[MethodInfo, Any]:
    """A method that needs no download, and trains for a step."""
    info = method_info(name)
    preset = "tiny" if "tiny" in info.presets else "quick"
    if preset == "tiny":
        pytest.importorskip("open_clip", reason="CLIP's network comes with the extra [clip]")
    settings = {"steps": steps, "epochs": steps, "lesions": 3}
    fields = {field.name for field in dataclasses.fields(info.config)}
    return info, configure(info, preset=preset, settings={key: settings[key] for key in settings.keys() & fields})


def scores(method: Method, context: RunContext) -> Scores:
    """Of four images on the device, after adaptation to three; checked as the runner does."""
    images, abnormal = phantom_images(7).to(context.device), phantom_images(3, seed=1).to(context.device)
    if isinstance(method, AbnormalShotMethod):
        method = method.bound(abnormal)
    return scores_of(scorer_of(method, images[:3], context), images[3:])


def sources(device: torch.device) -> dict[str, PhantomSource]:
    return {f"phantoms {seed}": PhantomSource(seed, 64, device) for seed in (1, 2)}


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_method_computes_where_its_images_are(name: str, gpu: torch.device) -> None:
    info, config = small(name)
    result = scores(info.build(config), LocalContext(gpu))
    assert all(isinstance(part, OnGpu) for part in (result.image, result.pixel, result.support) if part is not None)


@pytest.mark.parametrize("name", TRAINED)
def test_a_method_learns_where_its_images_are_and_goes_on_from_a_checkpoint(name: str, gpu: torch.device) -> None:
    info, config = small(name)
    method, context = info.build(config), LocalContext(gpu)
    method.pretrain(sources(gpu), context)
    state = {key: value.cpu() for key, value in method.state().items()}
    if "finished" in state:
        state["finished"] = torch.tensor(False)
    method = info.build(small(name, steps=2)[1])
    method.load_state(state)
    method.pretrain(sources(gpu), context)
    result = scores(method, context)
    assert all(isinstance(part, OnGpu) for part in (result.image, result.pixel, result.support) if part is not None)
    trained = {key: value.cpu() for key, value in method.state().items()}
    if "counters" in trained:
        assert trained["counters"][1] == 2, "steps"
        assert any(not torch.equal(value, state[key]) for key, value in trained.items() if key.startswith("network."))


@pytest.mark.parametrize("name", ["patchcore", "spade", "d24fad"])
def test_the_stand_in_gives_the_cpus_scores(name: str, gpu: torch.device) -> None:
    info, config = small(name)
    there, here = (scores(info.build(config), LocalContext(device)) for device in (gpu, torch.device("cpu")))
    for on_gpu, on_cpu in ((there.image, here.image), (there.pixel, here.pixel)):
        if on_gpu is not None and on_cpu is not None:
            torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-5)


class Toy(Method):
    """Distance to the mean support, by a score that may forget where its images are."""

    def __init__(self, score: Callable[[Images, Tensor], Tensor]) -> None:
        self.score = score

    def adapt(self, support: Tensor, context: RunContext) -> Scorer:
        mean = support.mean(0)
        return lambda images: Scores(image=self.score(images, mean))


def distance(images: Images, mean: Tensor) -> Tensor:
    return (images - mean).square().mean((1, 2, 3))


def weights_left_behind(images: Images, mean: Tensor) -> Tensor:
    return (images - mean).flatten(1) @ torch.ones(mean.numel())


def mean_left_behind(images: Images, mean: Tensor) -> Tensor:
    return distance(images, mean.cpu())


def network_left_behind(images: Images, mean: Tensor) -> Tensor:
    return distance(nn.Conv2d(3, 3, 1)(images), mean).detach()


def indices_from_there(images: Images, mean: Tensor) -> Tensor:
    return distance(images, mean) + torch.arange(9.0)[images.argmax(1)[:, 0, 0]].to(images.device)


def added_up_here(images: Images, mean: Tensor) -> Tensor:
    return torch.zeros(len(images)).add_(distance(images, mean)).to(images.device)


def put_there_from_here(images: Images, mean: Tensor) -> Tensor:
    scores = torch.zeros(len(images), device=images.device)
    scores[torch.arange(len(images))] = distance(images, mean).cpu()
    return scores


def noise_of_a_cpu(images: Images, mean: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return distance(images, mean) + torch.rand(len(images), generator=generator, device=images.device)


def array_of_a_gpu(images: Images, mean: Tensor) -> Tensor:
    return torch.from_numpy(distance(images, mean).numpy()).to(images.device)


def scores_left_behind(images: Images, mean: Tensor) -> Tensor:
    return distance(images, mean).cpu()


@pytest.mark.parametrize(
    "score",
    [
        weights_left_behind,
        mean_left_behind,
        network_left_behind,
        indices_from_there,
        added_up_here,
        put_there_from_here,
        noise_of_a_cpu,
        array_of_a_gpu,
        scores_left_behind,
    ],
)
def test_what_cuda_would_refuse_is_refused(score: Callable[[Images, Tensor], Tensor], gpu: torch.device) -> None:
    with pytest.raises((RuntimeError, TypeError, MedfsadError), match=r"device|cuda"):
        scores(Toy(score), LocalContext(gpu))


def test_what_cuda_takes_is_taken(gpu: torch.device) -> None:
    images = phantom_images(4, size_px=16).to(gpu)
    assert images.device == GPU
    numbered = images[torch.tensor([2, 0])] * torch.tensor(2.0) + 1
    numbered[0, 0] = torch.tensor(3.0)
    numbered[torch.tensor([True, False])] = torch.tensor(4.0)
    numbered[:, 1].copy_(torch.zeros(2, 16, 16))
    assert numbered.is_cuda
    assert numbered[0].unique().tolist() == [0, 4]
    assert torch.rand(3, generator=torch.Generator().manual_seed(0)).to(gpu).cpu().shape == (3,)


class Unremembered(LocalContext):
    """A context for fake images: they have no digests, so everything is computed anew."""

    networks: dict[Backbone, Features]

    def features(self, backbone: Backbone, images: Images) -> tuple[Tensor, ...]:
        backbone = counted(backbone)
        order = sorted(backbone.stages)
        if backbone not in self.networks:
            network = Features(backbone, bare_network(backbone.name, tuple(order)))
            self.networks[backbone] = network.to(self.device)
        stages = self.networks[backbone](images)
        return tuple(stages[order.index(stage)] for stage in backbone.stages)

    def cached(
        self, key: Hashable, images: Images, compute: Callable[[Images], Sequence[Tensor]]
    ) -> tuple[Tensor, ...]:
        return tuple(compute(images))

    def paired(self, key: Hashable, images: Images, others: Images, compute: Callable[[Images], Tensor]) -> Tensor:
        return compute(others)


@pytest.fixture
def fake_scores(clip_of_its_own: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Method], Scores]:
    """From a method to its scores of four fake images of a fake GPU, after adaptation to three."""

    def brought(network: nn.Module, device: torch.device) -> nn.Module:
        for part in network.modules():
            for name, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                there = value.to(device)
                setattr(part, name, nn.Parameter(there, value.requires_grad) if name in part._parameters else there)
        return network

    monkeypatch.setattr(nn.Module, "to", brought)  # torch's own refuses a network that was made of fake tensors

    def scores_of_fakes(method: Method) -> Scores:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            images, abnormal = torch.rand(7, 3, 64, 64, device="cuda"), torch.rand(3, 3, 64, 64, device="cuda")
            if isinstance(method, AbnormalShotMethod):
                method = method.bound(abnormal)
            context = Unremembered(torch.device("cuda"))
            context.networks = {}
            return scorer_of(method, images[:3], context)(images[3:])

    return scores_of_fakes


@pytest.mark.parametrize("name", sorted(set(METHODS) - NOT_FAKE.keys()))
def test_a_method_computes_where_its_fake_images_are(name: str, fake_scores: Callable[[Method], Scores]) -> None:
    info, config = small(name)
    result = fake_scores(info.build(config))
    assert {part.device.type for part in (result.image, result.pixel) if part is not None} == {"cuda"}


@pytest.mark.parametrize("name", sorted(NOT_FAKE))
def test_methods_that_look_at_values_refuse_fake_tensors(name: str, fake_scores: Callable[[Method], Scores]) -> None:
    """The list is to shrink when a method, or torch, can do more."""
    info, config = small(name)
    with pytest.raises(RuntimeError, match=NOT_FAKE[name]):
        fake_scores(info.build(config))


@pytest.mark.parametrize("score", [weights_left_behind, network_left_behind])
def test_fake_tensors_refuse_what_cuda_would(
    score: Callable[[Images, Tensor], Tensor], fake_scores: Callable[[Method], Scores]
) -> None:
    with pytest.raises(RuntimeError, match="device"):
        fake_scores(Toy(score))
