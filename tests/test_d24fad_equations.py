"""D²4FAD against a slow transcription of its equations in NumPy: few channels, loops, nothing of ours or torch's."""

import numpy as np
import pytest
import torch
from jaxtyping import Float64

from d24fad.config import Config
from d24fad.losses import residual_map
from d24fad.networks import Networks
from d24fad.student import Doubling
from d24fad.training import training_losses
from d24fad.weighting import own_weights, shared_weights

CHANNELS, HEIGHTS, LAST = (4, 6, 8), (16, 8, 4), (10, 2)
Array = Float64[np.ndarray, "*shape"]


class Slow:
    """Student and learned weights, image by image, from a state dict; batch-norm by running or by batch statistics."""

    def __init__(self, state: dict[str, torch.Tensor], *, batch_statistics: bool) -> None:
        self.state = {name: value.double().numpy() for name, value in state.items()}
        self.batch_statistics = batch_statistics

    def conv(self, x: Array, name: str, padding: int = 0) -> Array:
        kernel = self.state[f"{name}.weight"]
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        height, width = (padded.shape[axis] - kernel.shape[axis] + 1 for axis in (2, 3))
        out = np.zeros((len(x), len(kernel), height, width))
        for dy in range(kernel.shape[2]):
            for dx in range(kernel.shape[3]):
                part = padded[:, :, dy : dy + height, dx : dx + width]
                out += np.einsum("nchw,oc->nohw", part, kernel[:, :, dy, dx])
        return out + self.state.get(f"{name}.bias", np.zeros(len(kernel)))[:, None, None]

    def twice(self, x: Array, name: str) -> Array:
        """Transposed 2 × 2 convolution of stride 2: every pixel paints a 2 × 2 block."""
        kernel = self.state[f"{name}.weight"]
        out = np.zeros((len(x), kernel.shape[1], 2 * x.shape[2], 2 * x.shape[3]))
        for dy in range(2):
            for dx in range(2):
                out[:, :, dy::2, dx::2] = np.einsum("nchw,co->nohw", x, kernel[:, :, dy, dx])
        return out

    def norm(self, x: Array, name: str) -> Array:
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.batch_statistics:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        scale = self.state[f"{name}.weight"] / np.sqrt(var + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def block(self, x: Array, name: str, *, first: bool) -> Array:
        out = np.maximum(self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1"), 0)
        out = self.twice(out, f"{name}.conv2") if first else self.conv(out, f"{name}.conv2", padding=1)
        out = np.maximum(self.norm(out, f"{name}.bn2"), 0)
        out = self.norm(self.conv(out, f"{name}.conv3"), f"{name}.bn3")
        other = self.norm(self.twice(x, f"{name}.upsample.0"), f"{name}.upsample.1") if first else x
        return np.maximum(out + other, 0)

    def student(self, last: Array) -> list[Array]:
        scales: list[Array] = []
        x = last
        for stage in (1, 2, 3):
            for depth in range(2):
                x = self.block(x, f"decoder.layer{stage}.{depth}", first=depth == 0)
            scales.insert(0, x)
        return scales

    def weights(self, query: Array, support: Array, scale: int) -> Array:
        """Equation 4 for one query and its K supports."""
        key = self.conv(support, f"weight.proj_in{scale + 1}")
        logits = np.array([(query * support_key).sum() for support_key in key]) / np.sqrt(len(query))
        odds = np.exp(logits - logits.max())
        return odds / odds.sum()


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def resized(map_: Array, edge: int) -> Array:
    """Bilinear with aligned corners, pixel by pixel."""
    out = np.zeros((edge, edge))
    for y in range(edge):
        for x in range(edge):
            v, u = y * (map_.shape[0] - 1) / (edge - 1), x * (map_.shape[1] - 1) / (edge - 1)
            top, left = min(int(v), map_.shape[0] - 2), min(int(u), map_.shape[1] - 2)
            dy, dx = v - top, u - left
            out[y, x] = (
                (1 - dy) * ((1 - dx) * map_[top, left] + dx * map_[top, left + 1])
                + dy * ((1 - dx) * map_[top + 1, left] + dx * map_[top + 1, left + 1])
            )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Small networks with weights, and running statistics, that are no one's default."""
    config = Config(size_px=32, depths=(2, 2, 2))
    small_networks = Networks([*CHANNELS, LAST[0], *HEIGHTS, LAST[1]], config)
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for name, value in small_networks.state_dict().items():
            if value.is_floating_point():
                drawn = torch.from_numpy(rng.normal(0, 0.4, tuple(value.shape)))
                value.copy_(drawn.abs() + 0.5 if name.endswith(("var", "bn1.weight", "bn2.weight")) else drawn)
    return small_networks


def features(count: int, *, seed: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    shapes = [(channels, height) for channels, height in zip((*CHANNELS, LAST[0]), (*HEIGHTS, LAST[1]), strict=True)]
    return [torch.from_numpy(np.maximum(rng.normal(0.3, 1, (count, c, h, h)), 0).astype(np.float32)) for c, h in shapes]


def test_the_map_is_that_of_the_equations(networks: Networks) -> None:
    query, support = features(3, seed=1), features(4, seed=2)
    slow = Slow(networks.state_dict(), batch_statistics=False)
    zq, zs = slow.student(query[3].double().numpy()), slow.student(support[3].double().numpy())
    expected, weights = np.zeros((3, 32, 32)), np.zeros((3, 3, 4))
    for image in range(3):
        for scale in range(3):
            w = slow.weights(zq[scale][image], zs[scale], scale)
            weights[scale, image] = w
            mixed = np.einsum("k,kchw->chw", w, zs[scale])
            height = HEIGHTS[scale]
            map_ = np.array(
                [[1 - cosine(zq[scale][image][:, y, x], mixed[:, y, x]) for x in range(height)] for y in range(height)]
            )
            expected[image] += resized(map_, 32)
    networks.eval()
    with torch.no_grad():
        fast, decoded_support = networks.decode(query[3]), networks.decode(support[3])
        keys = networks.weight.keys(decoded_support)
        fast_weights = [
            shared_weights(q, key, s, "learned") for q, key, s in zip(fast, keys, decoded_support, strict=True)
        ]
        mixes = [torch.einsum("nk,kchw->nchw", w, s) for w, s in zip(fast_weights, decoded_support, strict=True)]
        maps = residual_map(fast, mixes, 32)
    np.testing.assert_allclose(np.stack([w.numpy() for w in fast_weights]), weights, atol=1e-4)
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_the_losses_are_those_of_the_equations(networks: Networks, shared: bool) -> None:
    """In training mode: batch-norm takes the statistics of each pass by itself."""
    shots, count = 2, 3
    config = Config(size_px=32, depths=(2, 2, 2), shared_support=shared)
    query = features(count, seed=3)
    supports = features(shots if shared else shots * count, seed=4)[3]
    slow = Slow(networks.state_dict(), batch_statistics=True)
    zq = slow.student(query[3].double().numpy())
    passes = [supports] if shared else list(supports.split(count))
    zs = [slow.student(part.double().numpy()) for part in passes]
    distill = sum(
        np.mean([1 - cosine(query[scale][i].double().numpy(), zq[scale][i]) for i in range(count)])
        for scale in range(3)
    )
    self_distill = 0.0
    for scale in range(3):
        terms = []
        for i in range(count):
            decoded_support = zs[0][scale] if shared else np.stack([zs[k][scale][i] for k in range(shots)])
            w = slow.weights(zq[scale][i], decoded_support, scale)
            terms.append(1 - cosine(zq[scale][i], np.einsum("k,kchw->chw", w, decoded_support)))
        self_distill += float(np.mean(terms))
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    networks.train()
    losses = training_losses(networks, query, supports, config)
    networks.load_state_dict(before)
    np.testing.assert_allclose(losses.distill.item(), distill, rtol=1e-4)
    np.testing.assert_allclose(losses.self_distill.item(), self_distill, rtol=1e-4)
    np.testing.assert_allclose(losses.total.item(), 0.1 * distill + self_distill, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_the_student_in_passes_is_its_forward_pass_by_pass(networks: Networks, training: bool) -> None:
    """With the running statistics that training leaves behind."""
    last, start = features(5, seed=9)[3], networks.state_dict()
    start = {name: value.clone() for name, value in start.items()}
    networks.train(training)
    with torch.no_grad():
        fast = networks.decoder.in_passes(last, 2)
        after_fast = {name: value.clone() for name, value in networks.state_dict().items()}
        networks.load_state_dict(start)
        plain = [networks.decoder(part) for part in last.split(2)]
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after_fast, dict(networks.state_dict()), rtol=1e-4, atol=1e-5)
    networks.load_state_dict(start)


def test_doubling_and_its_gradients_are_those_of_torchs_transposed_convolution() -> None:
    generator = torch.Generator().manual_seed(6)
    doubling = Doubling(5, 3)
    image = torch.randn(2, 5, 4, 6, generator=generator, requires_grad=True)
    wanted = torch.nn.functional.conv_transpose2d(image, doubling.weight, stride=2)
    doubled = doubling(image)
    torch.testing.assert_close(doubled, wanted)
    pull = torch.randn(wanted.shape, generator=generator)
    for mine, theirs in zip(
        torch.autograd.grad(doubled, (image, doubling.weight), pull),
        torch.autograd.grad(wanted, (image, doubling.weight), pull),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_turning_the_query_gives_the_weights_that_turning_the_supports_gives(networks: Networks) -> None:
    with torch.no_grad():
        query, support = networks.eval().decode(features(2, seed=7)[3]), networks.decode(features(3, seed=8)[3])
        for q, turned, s, key in zip(
            query, networks.weight.turned(query), support, networks.weight.keys(support), strict=True
        ):
            own = own_weights(q, turned, s.expand(len(q), *s.shape), "learned")
            torch.testing.assert_close(own, shared_weights(q, key, s, "learned"), atol=1e-4, rtol=0)
