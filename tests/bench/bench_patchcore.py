"""PatchCore at 4 shots, 256 px, EfficientNet-Lite0: adapt and score 640 images, native beside anomalib's, in turns.

Both have the same weights, the same whole bank and the same batches; anomalib's torch model is called directly, without
its trainer, which is the least it can cost. Goal: at least 1.5 times its speed. The features alone stand beside, in
such batches, too; ours take two images a pass, which stay in a CPU's cache.
"""

import argparse
import importlib.util
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from medfsad_baselines.patchcore import Config, PatchCore
from medfsad_bench.method import Backbone, Images
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.frozen import load_backbone
from medfsad_bench.runner.weights import EMBEDDED
from medfsad_bench.testing import phantom_images

BATCH, ROUNDS, SHOTS = 32, 5, 4  # the batch is the runner's
STAGES = (2, 3)
GOAL = 1.5

Score = Callable[[Images], torch.Tensor]


def native(support: Images) -> Score:
    """Our baseline behind a fresh cache: every image is new to it."""
    scorer = PatchCore(Config(backbone=EMBEDDED, stages=STAGES)).adapt(support, LocalContext())
    return lambda images: scorer(images).image  # type: ignore[return-value]


def anomalibs(support: Images) -> Score:
    """anomalib's torch model with our weights in its feature extractor."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    network = load_backbone(Backbone(EMBEDDED, STAGES), torch.device("cpu"))
    bare: Any = network.network
    model: Any = PatchcoreModel(bare.feature_info.module_name(), backbone="tf_efficientnet_lite0", pre_trained=False)
    extractor = model.feature_extractor.feature_extractor
    state = bare.state_dict()
    extractor.load_state_dict({name: state[name] for name in extractor.state_dict()})

    def scaled(images: Images) -> Images:
        return (images - network.mean) / network.std

    model.train()
    model.feature_extractor.eval()
    model(scaled(support))
    model.memory_bank = torch.vstack(model.embedding_store)
    model.eval()
    return lambda images: model(scaled(images)).pred_score


def features_alone(_: Images) -> Score:
    """The network and nothing else."""
    network = load_backbone(Backbone(EMBEDDED, STAGES), torch.device("cpu"))
    return lambda images: network(images)[0][:, 0, 0, 0]


def main() -> None:
    """Print images a second of each, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640, help="in all; fewer are quicker and say less")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread: for a machine that is busy")
    options = parser.parse_args()
    per_round = options.images // ROUNDS
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
    contenders = {"native": native, "features alone": features_alone}
    if importlib.util.find_spec("anomalib") is None:
        print("anomalib isn't installed, so there is nothing to compare with: pip install 'medfsad[anomalib]'")
    else:
        logging.getLogger("anomalib").setLevel(logging.ERROR)
        contenders["anomalib"] = anomalibs
    support = phantom_images(SHOTS, size_px=256)
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    scores: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for number in range(ROUNDS):
            batches = [phantom_images(BATCH, size_px=256, seed=1 + number * 100 + i) for i in range(per_round // BATCH)]
            for name, adapt in contenders.items():
                started = clock()
                score = adapt(support)
                scores[name] = torch.cat([score(batch) for batch in batches])
                spent[name].append(clock() - started)
    for name, seconds in spent.items():
        print(f"{name}: {per_round / statistics.median(seconds):.1f} images/s ({torch.get_num_threads()} threads)")
    if "anomalib" in spent:
        ratio = statistics.median(a / b for a, b in zip(spent["anomalib"], spent["native"], strict=True))
        gap = float(((scores["native"] - scores["anomalib"].flatten()).abs() / scores["native"]).max())
        print(f"native is {ratio:.2f} × anomalib (goal {GOAL}); scores differ by {gap:.1e} at most, relatively")


if __name__ == "__main__":
    main()
