"""What is worth keeping on disk: size, seconds to compute, to write and to read back, by stages of EfficientNet-Lite0.

    python tests/bench/bench_feature_store.py PREPARED.h5 [--images 200]

One process, as many threads as OMP_NUM_THREADS says. Reading is opening, proving and gathering every image once, from
the system's cache of files; a disk of 500 MB/s adds 2 ms for each MB.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from medfsad_bench.method import Backbone
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.images import shown, stored_images
from medfsad_bench.runner.stored_features import FileImages
from medfsad_bench.store import Dataset

CPU = torch.device("cpu")
STAGES = [(0, 1, 2, 3, 4), (1, 2, 3), (2, 3, 4), (2, 3), (3,), (4,)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    dataset = Dataset(arguments.file)
    images = FileImages(dataset.attributes["content_digest"], stored_images(dataset, np.arange(arguments.images), CPU))
    print(f"{'stages':>15} {'MB':>7} {'computed':>9} {'and written':>12} {'read':>7} {'s saved per MB':>15}")
    for stages in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            computed = _seconds(None, images, stages)
            written = _seconds(FeatureStore(Path(folder)), images, stages)
            read = _seconds(FeatureStore(Path(folder)), images, stages)
            size_mb = sum(path.stat().st_size for path in Path(folder).rglob("*.arrow")) / 1e6
        saved = (computed - read) / size_mb
        text = " ".join(map(str, stages))
        print(f"{text:>15} {size_mb:7.0f} {computed:8.1f}s {written:11.1f}s {read:6.2f}s {saved:15.2f}")


def _seconds(store: FeatureStore | None, images: FileImages, stages: tuple[int, ...]) -> float:
    """Processor time of all images in batches of 32, with a network that is loaded."""
    cache, backbone = FeatureCache(CPU, store=store), Backbone("efficientnet_lite0", stages)
    cache.features(backbone, torch.zeros(1, *images.stored.shape[1:]))
    started = time.process_time()
    with cache.expecting({images.content_digest: "set"}, lambda: [images], lambda *_: None):
        for positions in torch.arange(len(images.stored)).split(32):
            cache.features(backbone, shown(images.stored, positions))
    return time.process_time() - started


if __name__ == "__main__":
    main()
