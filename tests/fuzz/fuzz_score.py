"""Feed damaged real files to `medfsad score`, as new images and as supports: each ends in a score or in a line.

    PYTHONPATH=tests python -m fuzz.fuzz_score --inputs 2000 [--seed 0] [--shared ../shared]

Damaged files are scored some at a time; every tenth batch has damaged supports too. Exit status 1 if a
file is neither scored nor left out with a reason of one line, or a batch raises anything but a `MedfsadError` of one
paragraph.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from fuzz.fuzz_readers import mutated, seeds
from PIL import Image

from medfsad_bench.errors import MedfsadError
from medfsad_bench.own_images.folder import ScoreOptions, score_folder
from medfsad_bench.own_images.reading import ReadingOptions
from medfsad_bench.own_images.trained import MethodOptions

BATCH = 20
METHOD = MethodOptions("pixel_distance", device="cpu")


class Silent:
    """Shows no progress."""

    def start(self, label: str, total: int) -> None:
        """A stage begins."""

    def advance(self, steps: int) -> None:
        """Some steps are done."""


def main() -> int:
    """Score all batches, and say what became of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path)
    options = parser.parse_args()
    files = [item for item in seeds(options.shared) if ".slide." not in item[0]]
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    started = time.process_time()
    for first in range(0, options.inputs, BATCH):
        with tempfile.TemporaryDirectory() as folder:
            count = min(BATCH, options.inputs - first)
            score_batch(Path(folder), files, options.seed, first, count, outcomes, faults)
    spent = time.process_time() - started
    print(f"{options.inputs} inputs: {dict(outcomes)}; {spent:.0f} s of a processor")  # noqa: T201
    print("\n".join(faults))  # noqa: T201
    return 1 if faults else 0


def score_batch(
    folder: Path,
    files: list[tuple[str, bytes]],
    seed: int,
    first: int,
    count: int,
    outcomes: Counter[str],
    faults: list[str],
) -> None:
    """Score some damaged files against four sound supports, or against damaged ones beside them."""
    support, new = folder / "support", folder / "new"
    for path in (support, new):
        path.mkdir()
    sound = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(sound.integers(60, 200, (40, 40), np.uint8)).save(support / f"{number}.png")
    written = []
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        name, content = files[int(rng.integers(len(files)))]
        damaged = mutated(content, rng, other=files[int(rng.integers(len(files)))][1])
        as_support = (first // BATCH) % 10 == 0 and number < first + 2
        path = (support if as_support else new) / f"{number}-{name}"
        path.write_bytes(damaged)
        written.append((path.name, as_support))
    try:
        outcome = score_folder(ScoreOptions([support], [new], folder / "out", METHOD, ReadingOptions(32)), Silent())
    except MedfsadError as error:
        outcomes["batch refused"] += count
        if "\n" in str(error):
            faults.append(f"{first}: a refusal in several lines: {str(error)[:200]!r}")
        return
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        outcomes["batch escaped"] += count
        faults.append(f"{first}: {error!r}"[:300])
        return
    reasons = {item.name: item.reason for item in outcome.left_out}
    reasons |= {item["name"]: item["reason"] for item in outcome.settings["unusable_supports"]}
    scored = set(outcome.table["file"])
    for name, as_support in written:
        lines = [reason for item, reason in reasons.items() if item.startswith(name)]
        if as_support:
            outcomes["support left out" if lines else "support used"] += 1
        elif name in scored:
            outcomes["scored"] += 1
        elif lines:
            outcomes["left out"] += 1
        else:
            outcomes["silent"] += 1
            faults.append(f"{first}: {name} is neither scored nor left out")
        faults += [f"{name}: a reason in several lines" for line in lines if "\n" in line]


if __name__ == "__main__":
    sys.exit(main())
