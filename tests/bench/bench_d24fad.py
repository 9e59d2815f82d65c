"""D²4FAD side by side with a plain loop that does what the reference implementation does. Prints ratios.

The plain loop decodes images from PNG files of 512 × 512 pixels for every batch, lets the loss flow back through the
frozen teacher, passes every query's K supports through teacher and student, in training and at test time, and leaves
denormal numbers as they are. Both sides have the same weights and images, take turns, and have to end with equal
losses and maps.

    python tests/bench/bench_d24fad.py [--backbone wide_resnet50_2] [--batch 8] [--rounds 3]
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Protocol, TypeVar

import numpy as np
import torch
from einops import einsum
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.losses import cosine_loss, residual_map
from d24fad.networks import Networks, new_networks
from d24fad.student import Doubling
from d24fad.training import training_losses
from medfsad_bench.method import Backbone, Scores
from medfsad_bench.runner.context import LocalContext, denormals_flushed
from medfsad_bench.runner.frozen import load_backbone

SIZE_PX, NATIVE_PX, COUNT = 128, 512, 72
STAGES = (1, 2, 3, 4)
T = TypeVar("T")


class Decoded(Protocol):
    """Images by number, in [0, 1]."""

    def decoded(self, numbers: np.ndarray) -> Tensor:
        """A batch."""


class Files:
    """PNG images on disk, as a data loader of the reference meets them."""

    def __init__(self, folder: Path, count: int) -> None:
        rng = np.random.default_rng(1)
        self.paths = [folder / f"{number:03d}.png" for number in range(count)]
        for path in self.paths:
            coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
            smooth = np.asarray(coarse.resize((NATIVE_PX, NATIVE_PX), Image.Resampling.BICUBIC), np.int16)
            grain = rng.integers(-4, 5, smooth.shape)  # so that a PNG has something to unpack, as a real image's
            Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path)

    def decoded(self, numbers: np.ndarray) -> Tensor:
        """Read, squash to 128 px, to [0, 1]."""
        return self.prepared(numbers).float() / 255

    def prepared(self, numbers: np.ndarray) -> Tensor:
        """The same as bytes, as `medfsad prepare` makes them once."""
        images = []
        for number in numbers:
            picture = Image.open(io.BytesIO(self.paths[number].read_bytes())).convert("RGB")
            images.append(np.asarray(picture.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


class Plain:
    """What the reference does, step by step."""

    def __init__(
        self,
        files: "Decoded",
        backbone: Backbone,
        networks: Networks,
        config: Config,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    ) -> None:
        self.files, self.config = files, config
        self.networks = with_transposed_convolutions(networks)
        self.teacher = load_backbone(backbone, device)
        self.teacher.requires_grad_(True)  # frozen by the optimiser alone, so gradients are computed for it too
        self.optimiser = torch.optim.Adam(networks.parameters(), lr=1e-4, betas=(0.5, 0.999))

    def step(self, queries: np.ndarray, supports: np.ndarray) -> float:
        self.networks.train()
        teacher = self.teacher(self.files.decoded(queries))
        query = self.networks.decode(teacher[3])
        passes = [self.networks.decode(self.teacher(self.files.decoded(column))[3]) for column in supports.T]
        self_distill = cosine_loss(query, self._mixed(query, passes))
        loss = self.config.distillation_weight * cosine_loss(teacher[:3], query) + self_distill
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def maps(self, queries: Tensor, support: Tensor) -> Tensor:
        self.networks.eval()
        with torch.no_grad():
            query = self.networks.decode(self.teacher(queries)[3])
            repeated = [image.repeat(len(queries), 1, 1, 1) for image in support]  # every query brings its own copies
            passes = [self.networks.decode(self.teacher(column)[3]) for column in repeated]
            return residual_map(query, self._mixed(query, passes), SIZE_PX)

    def _mixed(self, query: list[Tensor], passes: list[list[Tensor]]) -> list[Tensor]:
        mixed = []
        for scale, project in enumerate(self.networks.weight.children()):
            supports = torch.stack([decoded[scale] for decoded in passes], dim=1)
            keys = torch.stack([project(decoded[scale]) for decoded in passes], dim=1)
            weights = (einsum(query[scale], keys, "n c h w, n k c h w -> n k") / supports.shape[2] ** 0.5).softmax(1)
            mixed.append((weights[:, :, None, None, None] * supports).sum(1))
        return mixed


def with_transposed_convolutions(networks: Networks) -> Networks:
    """The same weights with torch's own layers alone."""
    for block in list(networks.decoder.modules()):
        for name, part in list(block.named_children()):
            if isinstance(part, Doubling):
                inputs, outputs = part.weight.shape[:2]
                layer = torch.nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
                layer.weight = part.weight
                setattr(block, name, layer)
    return networks


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", action="append", help="timm name; random weights where it isn't embedded")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3, help="of two training steps a side")
    parser.add_argument("--queries", type=int, default=96, help="to score; the K supports are passed once for all")
    arguments = parser.parse_args()
    table = Table(title=f"D²4FAD at {SIZE_PX} px, batch {arguments.batch}, {torch.get_num_threads()} thread(s)")
    for column in ("backbone", "what", "plain, images/s", "ours, images/s", "ratio", "goal", "difference"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.backbone or ["wide_resnet50_2", "efficientnet_lite0"]:
            for row in compared(
                name, Path(scratch), arguments.batch, arguments.shots, arguments.rounds, arguments.queries
            ):
                table.add_row(*row)
    Console(file=sys.stdout, width=120).print(table)


def compared(name: str, scratch: Path, batch: int, shots: list[int], rounds: int, queries: int) -> list[list[str]]:
    """Rows of one backbone: training at K = 4 with the teacher's features at hand, cold evaluation at every K."""
    folder = scratch / name
    folder.mkdir()
    files = Files(folder, max(COUNT, queries + max(shots)))
    weights = None if name == "efficientnet_lite0" else random_weights(name, folder / "teacher.pth")
    config = Config(backbone=name, weights=weights)
    backbone = Backbone(name, STAGES, SIZE_PX, normalise=False, weights=weights)
    context = LocalContext()
    networks = [new_networks(context.features(backbone, files.decoded(np.arange(1))), config, seed=0) for _ in range(3)]
    plain = Plain(files, backbone, networks[0], config)
    rng = np.random.default_rng(2)
    numbers, supports = rng.permutation(COUNT)[:batch], rng.integers(0, COUNT, (batch, 4))
    teacher = context.features(backbone, files.decoded(numbers))
    support = context.features(backbone, files.decoded(supports.T.reshape(-1)))[3]

    def trained(own: Networks, support: Tensor, config: Config) -> Callable[[], float]:
        optimiser = torch.optim.Adam(own.parameters(), lr=1e-4, betas=(0.5, 0.999), fused=True)

        def step() -> float:
            own.train()
            losses = training_losses(own, teacher, support, config)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            return losses.total.item()

        return step

    def equal_weights() -> None:  # rounding grows from step to step
        networks[1].load_state_dict(plain.networks.state_dict())

    plain_step, own_step = lambda: plain.step(numbers, supports), trained(networks[1], support, config)
    slow, fast, losses = by_turns(plain_step, own_step, rounds, settle=True, begin=equal_weights)
    worst = max(abs(a - b) / a for a, b in losses)
    rows = [[name, "training, K = 4", *rates(batch, slow, fast), "≥ 3", f"loss {worst:.1e}"]]
    step = trained(networks[2], support[:4], replace(config, shared_support=True))
    _, shared, _ = by_turns(lambda: 0.0, step, rounds, settle=True)
    rows.append([name, "the same, one support for the batch", *rates(batch, slow, shared), "–", "a deviation"])
    for k in shots:
        rows.append([name, f"evaluation, cold, K = {k}", *evaluation(plain, config, files, queries, batch, k)])
    return rows


def evaluation(plain: Plain, config: Config, files: Files, queries: int, batch: int, shots: int) -> list[str]:
    """Score all queries on one draw; no feature is known, the networks are loaded.

    The plain loop decodes its images from files, as the reference does; ours takes them from a prepared set's bytes.
    """
    numbers = np.arange(queries)
    prepared = files.prepared(numbers)
    support = files.decoded(np.arange(len(files.paths) - shots, len(files.paths)))
    method = D24FAD(config)
    networks = LocalContext().cache
    support_stages = networks.features(method._backbone, support[:1])  # loads the network
    method._networks = new_networks(support_stages, config, seed=0)
    method._networks.load_state_dict(plain.networks.state_dict())

    def ours() -> Tensor:
        context = LocalContext()
        context.cache._networks = networks._networks
        scorer = method.adapt(support, context)
        return torch.cat([pixel(scorer(part.float() / 255)) for part in prepared.split(batch)])

    def reference() -> Tensor:
        return torch.cat([plain.maps(files.decoded(part), support) for part in batches(numbers, batch)])

    slow, fast, maps = by_turns(reference, ours, 1)
    worst = max(float((a - b).abs().max()) for a, b in maps)
    return [*rates(queries, slow, fast), f"≥ {0.9 * (1 + shots):.1f}", f"map {worst:.1e}"]


def batches(numbers: np.ndarray, size: int) -> list[np.ndarray]:
    """In order, the last one perhaps shorter."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def pixel(scores: Scores) -> Tensor:
    """The maps, which this method always gives."""
    assert scores.pixel is not None
    return scores.pixel


def by_turns(
    slow: Callable[[], T],
    fast: Callable[[], T],
    rounds: int,
    *,
    settle: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> tuple[float, float, list[tuple[T, T]]]:
    """Median time of each side, and what their first calls returned, round by round.

    With `settle` a side makes one step that isn't timed before each that is: it fetches the memory that the other side
    has given back, which a loop by itself does once in all.
    """
    times: tuple[list[float], list[float]] = ([], [])
    returned = []
    for _ in range(rounds):
        begin()
        pair = []
        for side, call in enumerate((slow, fast)):
            with denormals_flushed() if side else nullcontext():  # as `medfsad run` does, and the reference doesn't
                for _ in range(1 + settle):
                    started = time.perf_counter()
                    value = call()
                    seconds = time.perf_counter() - started
                    pair.append(value)
                times[side].append(seconds)
        returned.append((pair[0], pair[1 + settle]))
    return median(times[0]), median(times[1]), returned


def rates(images: int, slow: float, fast: float) -> list[str]:
    """Images per second of both sides, and their ratio."""
    return [f"{images / slow:.2f}", f"{images / fast:.2f}", f"{slow / fast:.1f}"]


def random_weights(name: str, path: Path) -> str:
    """A file with random weights of a network whose real ones come from a hub; speed doesn't depend on them."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model(name, features_only=True, out_indices=STAGES).state_dict(), path)
    return str(path)


if __name__ == "__main__":
    main()
