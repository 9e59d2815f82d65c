"""Equality with the reference implementation's outputs, for given weights and images."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.losses import cosine_loss, residual_map
from d24fad.networks import Networks
from d24fad.training import training_losses
from d24fad.weighting import shared_weights
from medfsad_bench.method import Backbone
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.frozen import load_backbone

STAGES = (1, 2, 3, 4)


def weights_module(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Oracle:
    """The reference's weights in our networks, its images, and what it computed."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        module = weights_module(folder)
        keys = json.loads((folder / "state_dict_keys.json").read_text())
        state = {
            part: {k: torch.from_numpy(module.tensor(f"{part}.{k}", tuple(shape))) for k, shape in _pairs(keys[part])}
            for part in ("encoder", "decoder", "weight")
        }
        torch.save(state["encoder"], scratch / "teacher.pth")
        torch.save({"decoder": state["decoder"], "weight": state["weight"]}, scratch / "reference.pth")
        self.checkpoint = scratch / "reference.pth"
        self.config = Config(weights=str(scratch / "teacher.pth"))
        self.backbone = Backbone(self.config.backbone, STAGES, 128, normalise=False, weights=self.config.weights)
        self.context = LocalContext()
        self.method = D24FAD(self.config)
        self.method.load_reference(self.checkpoint)
        with np.load(folder / "expected.npz") as file:
            self.expected = {name: file[name] for name in file.files}
        rng = np.random.Generator(np.random.PCG64(7))

        def images(*lead: int) -> torch.Tensor:
            coarse = rng.random((*lead, 3, 8, 8), dtype=np.float32)
            return torch.from_numpy(np.kron(coarse, np.ones((16, 16), np.float32)))

        self.query, self.support = images(3), images(4)
        self.train_query, self.train_support = images(4), images(4, 2)

    def networks(self) -> Networks:
        networks = self.method._networks
        assert networks is not None
        return networks

    def teacher(self, images: torch.Tensor) -> list[torch.Tensor]:
        return list(self.context.features(self.backbone, images))


def _pairs(entries: object) -> list[tuple[str, list[int]]]:
    return list(entries.items()) if isinstance(entries, dict) else [tuple(entry) for entry in entries]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def oracle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(shared / "oracle" / "d24fad", tmp_path_factory.mktemp("oracle"))


@pytest.mark.shared
def test_features_weights_losses_and_maps_are_the_references(oracle: Oracle) -> None:
    expected, networks = oracle.expected, oracle.networks().eval()
    teacher, support = oracle.teacher(oracle.query), oracle.teacher(oracle.support)
    means = np.array([float(teacher[stage].mean()) for stage in (3, 0, 1, 2)])
    np.testing.assert_allclose(means, expected["teacher_mean"], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        query, decoded_support = networks.decode(teacher[3]), networks.decode(support[3])
        keys = networks.weight.keys(decoded_support)
        weights = [shared_weights(q, k, s, "learned") for q, k, s in zip(query, keys, decoded_support, strict=True)]
        mixed = [torch.einsum("nk,kchw->nchw", w, s) for w, s in zip(weights, decoded_support, strict=True)]
        distill, self_distill = cosine_loss(teacher[:3], query), cosine_loss(query, mixed)
        maps = residual_map(query, mixed, 128).numpy()
    student = np.array([float(scale.mean()) for scale in query])
    np.testing.assert_allclose(student, expected["student_mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack([w.numpy() for w in weights]), expected["support_weights"], atol=2e-3)
    np.testing.assert_allclose(float(distill), expected["distill_loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(float(self_distill), expected["self_distill_loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps, expected["map_raw"], rtol=1e-4, atol=1e-5)


@pytest.mark.shared
def test_the_scorer_gives_the_references_raw_map_and_each_map_smoothed_by_itself(oracle: Oracle) -> None:
    from medfsad_bench.runner.maps import smooth_maps

    pixel = oracle.method.adapt(oracle.support, oracle.context)(oracle.query).pixel
    assert pixel is not None
    np.testing.assert_allclose(pixel.numpy(), oracle.expected["map_raw"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(smooth_maps(pixel, 128).numpy(), oracle.expected["map_smooth_2d"], rtol=1e-4, atol=1e-5)
    stack = gaussian_filter(pixel.numpy(), sigma=4)
    np.testing.assert_allclose(stack, oracle.expected["map_smooth_as_published"], rtol=1e-4, atol=1e-5)


def training_rows(oracle: Oracle, dtype: torch.dtype, *, steps: int) -> np.ndarray:
    """Self-distillation, distillation and total before each of some Adam steps, (steps, 3)."""
    method = D24FAD(oracle.config)
    method.load_reference(oracle.checkpoint)
    assert method._networks is not None
    networks = method._networks.to(dtype).train()
    optimiser = torch.optim.Adam(networks.parameters(), lr=1e-4, betas=(0.5, 0.999))
    frozen = load_backbone(oracle.backbone, torch.device("cpu")).to(dtype)
    firsts_then_seconds = oracle.train_support.transpose(0, 1).flatten(0, 1)
    with torch.no_grad():
        teacher = frozen(oracle.train_query.to(dtype))
        support = frozen(firsts_then_seconds.to(dtype))[3]
    rows = []
    for step in range(steps):
        losses = training_losses(networks, teacher, support, oracle.config)
        rows.append([part.item() for part in losses])
        if step < steps - 1:
            optimiser.zero_grad()
            losses.total.backward()
            optimiser.step()
    return np.array(rows)


@pytest.mark.shared
def test_the_first_training_step_is_the_references(oracle: Oracle) -> None:
    (row,) = training_rows(oracle, torch.float32, steps=1)
    np.testing.assert_allclose(row, oracle.expected["train_losses"][0], rtol=1e-4)


@pytest.mark.shared
@pytest.mark.slow
def test_four_training_steps_in_float64_are_the_references_as_far_as_its_float32_goes(oracle: Oracle) -> None:
    """In float64, teacher and all, losses are the same on any processor with any number of threads; the reference's
    are of float32.

    Adam divides by the gradient's size, so it turns the last bits of tiny gradients into whole steps: after the first
    one the reference's losses are up to 6e-3 off the float64 ones, and those of float32 differ as much among machines.
    """
    rows, expected = training_rows(oracle, torch.float64, steps=4), oracle.expected["train_losses"]
    np.testing.assert_allclose(rows[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(rows[1:], expected[1:], rtol=1e-2)
