"""Whether memory depends on the number of images: `prepare` on 2,000 and 20,000 small pictures, one process for each.

    python tests/bench/prepare_memory.py [--counts 2000 20000]

Prints the largest memory of the preparing process, and of its largest worker. The pictures are 96 px noise, so that the
time goes into what is done for each image (files, digests, fingerprints, all pairs compared) and not into decoding.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EDGE_PX = 96


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    print("| images | preparing process, MiB | largest worker, MiB | seconds |\n|--:|--:|--:|--:|")
    for count in arguments.counts:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        used = json.loads(done.stdout.splitlines()[-1])
        print(f"| {count:,} | {used['own']:.0f} | {used['worker']:.0f} | {used['seconds']:.0f} |", flush=True)


def measure(count: int) -> dict[str, float]:
    """Prepare `count` pictures with two workers."""
    from medfsad_bench.curation.stage import PrepareOptions, prepare

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", _WRITE, folder, str(count), str(EDGE_PX)], check=True)
        started = time.perf_counter()
        options = PrepareOptions(Path(folder) / "out", size_px=EDGE_PX, workers=2)
        prepare(Path(folder) / "ward", options, watcher=_Silent())
        seconds = time.perf_counter() - started
    own, worker = (
        resource.getrusage(who).ru_maxrss / 2**10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"own": own, "worker": worker, "seconds": seconds}


class _Silent:
    def start(self, label: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


_WRITE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image

folder, count, edge = Path(sys.argv[1]) / "ward", int(sys.argv[2]), int(sys.argv[3])
for label in ("normal", "anomalous"):
    (folder / label).mkdir(parents=True)
for number in range(count):
    rng = np.random.default_rng(number)
    label = "normal" if number % 4 else "anomalous"
    picture = Image.fromarray(rng.integers(20, 256, (edge, edge), np.uint8))
    picture.save(folder / label / f"{number:06d}.png", compress_level=1)
"""


if __name__ == "__main__":
    main()
