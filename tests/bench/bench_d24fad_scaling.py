"""How D²4FAD's cost grows: time and peak memory over K, image size and number of images. Prints a table, draws a plot.

Every point is measured in a process of its own, so that its peak memory is its own; EfficientNet-Lite0, one thread.

    python tests/bench/bench_d24fad_scaling.py [--plot scaling.png] [--points few|all]
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console
from rich.table import Table
from torch import Tensor

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.episodes import epoch_episodes
from d24fad.networks import new_networks
from d24fad.training import episode_losses, new_training
from medfsad_bench.learning import Losses, SourceImages
from medfsad_bench.runner.context import LocalContext

BASE = {"shots": 4, "size_px": 128, "images": 64}
GRID = {
    "few": {"shots": [1, 4, 16], "size_px": [128, 256], "images": [64, 256]},
    "all": {"shots": [1, 2, 4, 8, 16, 32, 64], "size_px": [128, 192, 256, 384, 512], "images": [64, 256, 1024]},
}
BATCH, QUERIES = 8, 48


@dataclass(frozen=True)
class Point:
    """What one setting costs."""

    varied: str
    value: int
    features_ms: float  # per image, once
    step_ms: float  # per query of a training step
    score_ms: float  # per test image, cold
    peak_mb: float


class Pictures:
    """A source of random images, as the runner lends it."""

    def __init__(self, count: int, size_px: int) -> None:
        self._images = torch.randint(0, 255, (count, 3, size_px, size_px), dtype=torch.uint8)
        self.groups: Int64[Tensor, " n"] = torch.arange(count)
        self.digest = f"{count}-{size_px}"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Int64[Tensor, " b"], /) -> Tensor:
        return self._images[indices]


def measure(varied: str, value: int) -> Point:
    """One point, in this process."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    setting = BASE | {varied: value}
    count = max(setting["images"], setting["shots"] + BATCH + 1)
    config = Config(
        backbone="efficientnet_lite0", size_px=setting["size_px"], batch_size=BATCH, train_shots=setting["shots"]
    )
    context = LocalContext()
    backbone = D24FAD(config)._backbone
    context.features(backbone, torch.zeros(1, 3, setting["size_px"], setting["size_px"]))  # loads the network
    sources = SourceImages({"a": Pictures(count, setting["size_px"])}, backbone, context)
    started = time.process_time()
    sources.stages(np.array([0]))  # computes the features of all
    features_s = (time.process_time() - started) / count
    networks = new_networks(sources.stages(np.array([0])), config, seed=0)
    training = new_training(networks, config)
    episode = next(epoch_episodes(sources, config, seed=0, epoch=0))

    def losses(_epoch: int) -> Iterator[Losses]:
        yield {"loss": episode_losses(networks, sources, episode, config).total}

    training.run(losses, steps=1)
    started = time.process_time()
    training.run(losses, steps=2)
    step_s = (time.process_time() - started) / BATCH
    method = D24FAD(config)
    method._networks = networks
    images = torch.rand(QUERIES + setting["shots"], 3, setting["size_px"], setting["size_px"])
    started = time.process_time()
    scorer = method.adapt(images[: setting["shots"]], context)
    for part in images[setting["shots"] :].split(BATCH):
        scorer(part)
    score_s = (time.process_time() - started) / QUERIES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Point(varied, value, 1e3 * features_s, 1e3 * step_s, 1e3 * score_s, peak)


def main() -> None:
    """Measure all points, print and plot them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--points", choices=list(GRID), default="few")
    arguments = parser.parse_args()
    wanted = [(varied, value) for varied, values in GRID[arguments.points].items() for value in values]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        points = pool.starmap(measure, wanted, chunksize=1)
    table = Table(title=f"beside {BASE}; milliseconds of processor time")
    for column in ("varied", "value", "features, per image", "training, per query", "scoring, per image", "peak MiB"):
        table.add_column(column, justify="right")
    for point in points:
        figures = (point.features_ms, point.step_ms, point.score_ms)
        table.add_row(point.varied, str(point.value), *(f"{value:.1f}" for value in figures), f"{point.peak_mb:.0f}")
    Console(file=sys.stdout, width=110).print(table)
    if arguments.plot:
        plot(points, arguments.plot)


def plot(points: list[Point], path: Path) -> None:
    """Three panels, one a varied quantity, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axis, varied in zip(figure.subplots(1, 3), BASE, strict=True):
        own = [point for point in points if point.varied == varied]
        values = [point.value for point in own]
        for name, label in (("step_ms", "training, ms per query"), ("score_ms", "scoring, ms per image")):
            axis.plot(values, [getattr(point, name) for point in own], marker="o", label=label)
        axis.plot(values, [point.peak_mb for point in own], marker="s", linestyle=":", label="peak memory, MiB")
        axis.set(xscale="log", yscale="log", xlabel={"shots": "K", "size_px": "image size, px"}.get(varied, varied))
        axis.set_xticks(values, [str(value) for value in values])
        axis.minorticks_off()
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
