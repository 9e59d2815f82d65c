"""Smoothing of anomaly maps: two matrix products beside scipy's Gaussian of each map by itself. Prints the ratio.

python tests/bench/bench_maps.py [--size-px 256] [--maps 64] [--rounds 5]
"""

import argparse
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medfsad_bench.runner.maps import SIGMA_PER_128_PX, smooth_maps


def main() -> None:
    """Both sides by turns, on one thread; the best of all rounds counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--maps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    maps = np.random.default_rng(0).random((options.maps, options.size_px, options.size_px), np.float32)
    slow, fast, difference = [], [], 0.0
    for _ in range(options.rounds):
        started = time.process_time()
        each = np.stack([gaussian_filter(map_, SIGMA_PER_128_PX * options.size_px / 128) for map_ in maps])
        between = time.process_time()
        together = smooth_maps(torch.from_numpy(maps), options.size_px).numpy()
        slow.append(between - started)
        fast.append(time.process_time() - between)
        difference = float(np.abs(each - together).max())
    a, b = (1e3 * min(times) / options.maps for times in (slow, fast))
    print(
        f"smoothing at {options.size_px} px: scipy {a:.2f} ms, ours {b:.2f} ms a map, {a / b:.1f} × ({difference:.0e})"
    )


if __name__ == "__main__":
    main()
