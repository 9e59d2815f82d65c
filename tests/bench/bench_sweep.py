"""What a sweep costs beside one draw: ten draws × three shots, and one draw at K = 4, of every method without training.

    python tests/bench/bench_sweep.py [--cpu-time] [--images 256] [--only METHOD…]

Both start with an empty cache, so that the network's passes are in both. Images are hashed before the clock starts, as
those of a prepared file are when they are read. Goal: less than 6 times one draw.
"""

import argparse
import time

import torch

from medfsad_bench.method import Method
from medfsad_bench.registry import Broken, all_methods, configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.digests import chosen
from medfsad_bench.testing import phantom_images

METHODS = sorted(
    name
    for name, info in all_methods().items()
    if not (isinstance(info, Broken) or info.member or info.trains) and info.knowledge == "normals"
)
DRAWS, SHOTS, SIZE_PX = 10, (2, 4, 8), 256
GOAL = 6


def main() -> None:
    """Print the ratio of each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=256, help="test images; with few of them the supports' own passes weigh most"
    )
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread: for a machine that is busy")
    parser.add_argument("--only", nargs="+", metavar="METHOD", choices=METHODS, default=METHODS, help="some methods")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
    images = phantom_images(options.images, size_px=SIZE_PX)
    batches = [chosen(images, range(len(images))[start : start + 32]) for start in range(0, len(images), 32)]
    supports = []
    for draw in range(DRAWS):
        support = phantom_images(max(SHOTS), size_px=SIZE_PX, seed=1 + draw)
        supports.append({count: chosen(support, range(count)) for count in SHOTS})
    for name in options.only:
        info = method_info(name)
        method = info.build(configure(info, preset="quick"))

        def spent(draws: int, shots: tuple[int, ...], method: Method = method) -> float:
            context = LocalContext()
            started = clock()
            for support in supports[:draws]:
                for count in shots:
                    score = method.adapt(support[count], context)
                    for batch in batches:
                        score(batch)
            return clock() - started

        spent(1, (2,))  # loads weights and code
        single, whole = spent(1, (4,)), spent(DRAWS, SHOTS)
        print(
            f"{name}: {DRAWS} draws × {len(SHOTS)} shots cost {whole / single:.1f} × one draw (goal: below {GOAL})",
            flush=True,
        )


if __name__ == "__main__":
    main()
