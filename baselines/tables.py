"""The tables of baselines/RESULTS.md, from runs and from counting. `python baselines/tables.py --help` lists its parts.

- backbones RUNS: mean AUROC of methods by feature networks, and which of the two matters more
- on-support RUNS: what an unnoticed anomaly does to methods that learn from the support alone
- costs [METHOD…]: parameters, FLOPs, time and memory of each method, in a process of its own

`--into PAGE` writes a table where the page has a part of its name, and does not print it.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from medfsad_bench.board.accepted import rows_in_runs
from medfsad_bench.board.robustness import means, points_of, table_of_points
from medfsad_bench.board.sections import writer
from medfsad_bench.display import markdown_table
from medfsad_bench.errors import MedfsadError
from medfsad_bench.results.run_folder import scores_by_run

FREE_OF_FEATURES = ("chance", "shortcut", "pixel_distance")
ON_FEATURES = ("mean_distance", "padim", "spade", "patchcore", "anomalydino")
ON_SEVERAL_STAGES = ("multistage", "late_fusion", "subspace", "whitened_patch", "pooled_and_patch")
METHODS = (*FREE_OF_FEATURES, *ON_FEATURES, *ON_SEVERAL_STAGES)
TRAINED = ("stfpm", "rd4ad", "regad", "uniad", "inp_former")
ON_CLIP = ("winclip", "mediclip", "inctrl", "mvfa")
COSTS_PX, COSTS_IMAGES, COSTS_SHOTS = 256, 16, 4
BACKBONES_SHOTS = 4


def backbones(runs: Sequence[Path]) -> str:
    """Methods by feature networks at K = 4: means over the targets that all were run on, then the two spreads."""
    aurocs: Mapping[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in (row for folder in runs for row in rows_in_runs(folder)):
        if row.config.get("backbone") and row.shots == BACKBONES_SHOTS and not row.contaminated_supports:
            aurocs[row.method, row.config["backbone"]][row.target] = row.metrics["image_auroc"].value
    networks = Counter(method for method, _ in aurocs)
    aurocs = {key: by_target for key, by_target in aurocs.items() if networks[key[0]] > 1}
    targets = sorted(set.intersection(*(set(by_target) for by_target in aurocs.values())))
    by_pair = {key: fmean(by_target[target] for target in targets) for key, by_target in aurocs.items()}
    text = _grid({key: f"{value:.3f}" for key, value in by_pair.items()})
    spread = f"between backbones {_spread(by_pair, 1):.3f}, between methods {_spread(by_pair, 0):.3f}"
    return f"Mean over {', '.join(targets)}\n\n{text}\n\nMean range {spread}"


def on_support(runs: Sequence[Path]) -> str:
    """AUROC with clean and contaminated supports, preset `quick-support`: of each target, and their mean."""
    rows = [row for folder in runs for row in rows_in_runs(folder) if row.preset == "quick-support"]
    points = points_of(rows, {run: scores for folder in runs for run, scores in scores_by_run(folder).items()})
    return markdown_table(*table_of_points([*points, *means(points)]))


def costs(methods: Sequence[str]) -> str:
    """One row per method; each measured in its own process, so that its peak memory is its own."""
    lines = [
        "| method | parameters | GFLOP per image | adapt, first image, CPU s | next, CPU ms per image | memory, MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in methods or (*METHODS, *TRAINED, *ON_CLIP, "d24fad"):
        command = [sys.executable, str(Path(__file__).resolve()), "one-cost", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cost = json.loads(done.stdout.splitlines()[-1])
        lines.append(
            f"| `{name}` | {cost['parameters'] / 1e6:.2f} M | {cost['flops'] / 1e9:.2f} | {cost['adapt_s']:.2f} "
            f"| {1e3 * cost['score_s']:.0f} | {cost['memory_mb']:.0f} |"
        )
    return "\n".join(lines)


def one_cost(name: str) -> str:
    """Measure one method in this process: quick preset, K = 4, 256 px, features not known before, networks untrained.

    Times are CPU seconds of one thread, which hardly depend on what else the machine does. A CLIP has random weights.
    """
    import gc
    import resource
    import time

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from medfsad_bench.method import AbnormalShotMethod
    from medfsad_bench.registry import configure, method_info
    from medfsad_bench.runner.context import LocalContext
    from medfsad_bench.testing import phantom_images

    info = method_info(name)
    context = LocalContext()
    clip = {"backbone": "random:" + info.presets["quick"]["backbone"].split("/")[0]} if name in ON_CLIP else {}
    method = info.build(configure(info, preset="quick", settings=clip))
    if isinstance(method, AbnormalShotMethod):
        method = method.bound(phantom_images(COSTS_SHOTS, size_px=COSTS_PX, seed=2))
    torch.set_num_threads(1)
    images = phantom_images(COSTS_SHOTS + 1 + 2 * COSTS_IMAGES, size_px=COSTS_PX)
    support, first, counted, timed = images.split([COSTS_SHOTS, 1, COSTS_IMAGES, COSTS_IMAGES])
    others = phantom_images(COSTS_SHOTS + 1, size_px=COSTS_PX, seed=1)
    method.adapt(others[:COSTS_SHOTS], context)(others[COSTS_SHOTS:])  # loads the network
    started = time.process_time()
    scorer = method.adapt(support, context)
    scorer(first)  # with it: some methods look at the support only then
    adapt_s = time.process_time() - started
    gc.collect()  # what the first support left behind
    parameters = [part.requires_grad_(False) for part in gc.get_objects() if isinstance(part, torch.nn.Parameter)]
    with FlopCounterMode(display=False) as counter:  # which fails on learnt inputs that require gradients
        scorer(counted)
    started = time.process_time()
    scorer(timed)
    score_s = (time.process_time() - started) / COSTS_IMAGES
    return json.dumps(
        {
            "parameters": sum(part.numel() for part in parameters),
            "flops": counter.get_total_flops() / COSTS_IMAGES,
            "adapt_s": adapt_s,
            "score_s": score_s,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        }
    )


def main() -> None:
    """Print the part that is asked for."""
    parts: dict[str, Callable[[list[str]], str]] = {
        "backbones": lambda given: backbones([Path(folder) for folder in given]),
        "on-support": lambda given: on_support([Path(folder) for folder in given]),
        "costs": costs,
        "one-cost": lambda given: one_cost(given[0]),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts])
    parser.add_argument("given", nargs="*", help="folders of runs, or names of methods")
    parser.add_argument("--into", type=Path, help="page with a part of this name, to be written anew")
    arguments = parser.parse_args()
    try:
        write = writer(arguments.into, arguments.part)
        write(parts[arguments.part](arguments.given))
    except MedfsadError as error:
        parser.exit(2, f"{error}\n")


def _grid(cells: dict[tuple[str, str], str]) -> str:
    present = {name for name, _ in cells}
    first = [name for name in METHODS + TRAINED if name in present]
    names = first + sorted(present - set(first))
    columns = sorted({column for _, column in cells})
    rows = ((name, *(cells.get((name, column), "–") for column in columns)) for name in names)
    return markdown_table(["method", *columns], rows).rstrip()


def _spread(means: dict[tuple[str, str], float], axis: int) -> float:
    """Range along one axis (0: methods, 1: backbones) with the other held, averaged over the other."""
    held: dict[str, list[float]] = defaultdict(list)
    for key, value in means.items():
        held[key[1 - axis]].append(value)
    return fmean(max(values) - min(values) for values in held.values())


if __name__ == "__main__":
    main()
