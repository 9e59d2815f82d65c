"""What the feature cache costs beside the network: EfficientNet-Lite0 at 128 px on the CPU, cold and warm.

    python tests/bench/bench_cache.py [--images 256]

A cold pass in batches of 32, as a run has it: digests come with the images. Goal: bookkeeping below 5 % of it.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

from medfsad_bench.method import Backbone
from medfsad_bench.runner.digests import inherit
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.frozen import Features
from medfsad_bench.runner.images import shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    count = parser.parse_args().images
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 128, 128), np.uint8)
    stored = torch.from_numpy(pixels)
    started = time.process_time()
    inherit(stored, pixels)
    hashing = time.process_time() - started
    cache, backbone, network_s = FeatureCache(torch.device("cpu")), Backbone("efficientnet_lite0", (1, 2, 3)), 0.0
    inner = Features.forward

    def timed(self: Features, images: Any) -> Any:
        nonlocal network_s
        before = time.process_time()
        result = inner(self, images)
        network_s += time.process_time() - before
        return result

    Features.forward = timed  # type: ignore[method-assign]
    cache.features(backbone, shown(stored, torch.arange(8)))  # loads the weights
    cache, network_s, networks = FeatureCache(torch.device("cpu")), 0.0, cache._networks
    cache._networks = networks
    passes = {}
    for name in ("cold", "warm"):
        started = time.process_time()
        for positions in torch.arange(count).split(32):
            cache.features(backbone, shown(stored, positions))
        passes[name] = time.process_time() - started
    rest = passes["cold"] - network_s
    print(f"hashing on load   {1e3 * hashing / count:7.3f} ms per image")
    print(f"network           {1e3 * network_s / count:7.3f} ms per image")
    print(f"cold pass, rest   {1e3 * rest / count:7.3f} ms per image, {100 * rest / passes['cold']:.1f} % of the pass")
    print(f"with the hashing  {100 * (rest + hashing) / (passes['cold'] + hashing):.1f} %")
    print(f"warm pass         {1e3 * passes['warm'] / count:7.3f} ms per image")


if __name__ == "__main__":
    main()
