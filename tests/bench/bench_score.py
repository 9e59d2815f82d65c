"""`medfsad score` on a folder of images: speed against the loop that a user would write, and memory.

    python tests/bench/bench_score.py [--images 1000] [--size 256]
    python tests/bench/bench_score.py --images 5000 --file-size 1024 --memory

The loop reads each file, resizes it, passes it through the network and searches the supports' patches; it writes
nothing. Goal: `score`, which writes overlays, tables and a report too, has 0.9 of the loop's speed or more in the part
that they share, and 5,000 files of 1024² take less than 1.5 GiB; what is held after every 500 shows whether it grows.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medfsad_bench.method import Images
from medfsad_bench.own_images.detector import Detector, batch_size
from medfsad_bench.own_images.folder import ScoreOptions, score_folder
from medfsad_bench.own_images.reading import Pixels, ReadingOptions
from medfsad_bench.own_images.trained import MethodOptions, trained_method
from medfsad_bench.readers import resize_square

SHOTS, GOAL, GOAL_GIB = 8, 0.9, 1.5
METHOD = MethodOptions("multistage", preset="quick", device="cpu")


class MemoryTold:
    """Prints the process's largest memory so far, each time that so many images are scored."""

    def __init__(self, every: int) -> None:
        """Nothing is scored."""
        self._every, self._stage, self._done = every, "", 0

    def start(self, label: str, total: int) -> None:
        """A stage begins."""
        self._stage, self._done = label, 0

    def advance(self, steps: int) -> None:
        """Some steps are done."""
        before, self._done = self._done, self._done + steps
        if self._stage == "scoring" and self._done // self._every > before // self._every:
            print(f"{self._done} images: {peak_gib():.2f} GiB", flush=True)


def main() -> None:
    """Print seconds of both, and the largest memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=256, help="edge of what the method sees, px")
    parser.add_argument("--file-size", type=int, help="edge of the files, px; that of --size unless given")
    parser.add_argument("--keep", type=Path, help="new folder for what score wrote, with --memory")
    parser.add_argument("--memory", action="store_true", help="score alone: the loop's memory doesn't count")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, options.images, options.file_size or options.size)
        reading = ReadingOptions(options.size)
        started, inside = time.process_time(), []
        real = Detector.answer

        def timed(detector: Detector, pixels: Pixels) -> object:
            before = time.process_time()
            answer = real(detector, pixels)
            inside.append(time.process_time() - before)
            return answer

        Detector.answer = timed  # type: ignore[assignment]
        scoring = ScoreOptions([folder / "support"], [folder / "new"], folder / "out", METHOD, reading)
        score_folder(scoring, MemoryTold(500))
        Detector.answer = real  # type: ignore[method-assign]
        spent = time.process_time() - started
        peak = peak_gib()
        print(f"score: {spent:.0f} s of a processor, {sum(inside):.0f} s of it network and search; {peak:.2f} GiB")
        if options.memory:
            print(f"memory: {peak:.2f} GiB (goal: below {GOAL_GIB})")
            if options.keep:
                shutil.copytree(folder / "out", options.keep)
            return
        network = loop(folder, options.size)
        print(f"the loop: network and search {network:.0f} s")
        print(f"score has {network / sum(inside):.2f} of the loop's speed in network and search (goal {GOAL})")
        print(f"and {network / spent:.2f} of it with reading, overlays, tables and report")


def peak_gib() -> float:
    """The process's largest memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def write_images(folder: Path, count: int, size_px: int) -> None:
    """Blurred noise as JPEG files."""
    for part, number in (("support", SHOTS), ("new", count)):
        (folder / part).mkdir()
        for index in range(number):
            rng = np.random.default_rng([len(part), index])
            coarse = Image.fromarray(rng.integers(40, 200, (16, 16), np.uint8))
            coarse.resize((size_px, size_px), Image.Resampling.BICUBIC).save(folder / part / f"{index:05d}.jpg")


def loop(folder: Path, size_px: int) -> float:
    """Seconds of a processor for network and search alone, batch by batch, as somebody would write it."""
    trained = trained_method(METHOD, shots=SHOTS)
    scorer = trained.method.adapt(shown(sorted((folder / "support").iterdir()), size_px), trained.context)
    paths, spent, step = sorted((folder / "new").iterdir()), 0.0, batch_size(size_px)
    with torch.no_grad():
        for start in range(0, len(paths), step):
            images = shown(paths[start : start + step], size_px)
            before = time.process_time()
            scorer(images)
            spent += time.process_time() - before
    return spent


def shown(paths: list[Path], size_px: int) -> Images:
    """Files as a batch in [0, 1]."""
    pixels = [resize_square(np.asarray(Image.open(path).convert("RGB")), size_px) for path in paths]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
