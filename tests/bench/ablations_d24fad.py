"""What each part of D²4FAD does to its figure: one setting changed at a time, same targets, draws and images.

    python tests/bench/ablations_d24fad.py --data medfsad-data --runs runs-ablations [--steps 600] [--only TEXT] \
        [--into methods/d24fad/RESULTS.md]

One line a setting: strict image AUROC of each target, their mean, and the mean difference from the default with its
95 % interval for these targets and trainings. Done cells aren't done again, and two processes may share a folder of
runs (`--reverse` starts from the other end).
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from medfsad_bench.board.comparison import compare
from medfsad_bench.board.sections import writer
from medfsad_bench.metrics.metric import RANKING
from medfsad_bench.registry import method_info
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.plan import Cell, RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store.prepared import prepared_sets

TARGETS = ("chest_child", "histology_lung", "odir_glaucoma")
MEAN = "image_auroc_pooled_mean"


@dataclass(frozen=True)
class Ablation:
    """One line of the table: what differs from the `quick` preset."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


DEFAULT = Ablation("default")
ABLATIONS = (
    DEFAULT,
    Ablation("untrained student", {"epochs": 0}),
    Ablation("untrained, another seed", {"epochs": 0}, seed=1),
    Ablation("untrained, a third seed", {"epochs": 0}, seed=2),
    Ablation("teacher alone, uniform weights", {"epochs": 0, "compared": "teacher", "weighting": "uniform"}),
    Ablation("teacher alone, nearest support", {"epochs": 0, "compared": "teacher", "weighting": "nearest"}),
    Ablation("with the teacher's residual", {"residual": True}),
    Ablation("without self-distillation", {"self_distillation": False}),
    Ablation("without distillation", {"distillation": False}),
    Ablation("uniform weights", {"weighting": "uniform"}),
    Ablation("nearest support only", {"weighting": "nearest"}),
    Ablation("another training seed", {}, seed=1),
    Ablation("a third training seed", {}, seed=2),
    Ablation("own group's supports allowed", {"own_group": True}),
    Ablation("supports redrawn each epoch", {"supports": "redrawn"}),
    Ablation("queries share their support", {"shared_support": True}),
    Ablation("λ = 1", {"distillation_weight": 1.0}),
    Ablation("λ = 10", {"distillation_weight": 10.0}),
    Ablation("no ImageNet normalisation", {"normalise": False}),
    Ablation("600 steps, as the preset", {"steps": 600}),
    Ablation("64 px", {"size_px": 64}),
    Ablation("EfficientNet-Lite1", {"backbone": "efficientnet_lite1"}),
    Ablation("EfficientNet-Lite2", {"backbone": "efficientnet_lite2"}),
    Ablation("random EfficientNet-Lite0", {"backbone": "random:efficientnet_lite0"}),
    Ablation("256 px", {"size_px": 256}),
)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("medfsad-data"))
    parser.add_argument("--runs", type=Path, default=Path("runs-ablations"))
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200, help="of training, where a line doesn't say")
    parser.add_argument("--only", default="", help="lines whose name this regular expression finds, beside the default")
    parser.add_argument("--reverse", action="store_true", help="begin with the last line")
    parser.add_argument("--table", action="store_true", help="print what is done; run nothing")
    parser.add_argument("--into", type=Path, help="page with a part `ablations d24fad STEPS`, to be written anew")
    arguments = parser.parse_args()
    write = writer(arguments.into, f"ablations d24fad {arguments.steps}")
    wanted = [ablation for ablation in ABLATIONS if ablation is DEFAULT or re.search(arguments.only, ablation.name)]
    planned = {ablation.name: _cells(ablation, arguments) for ablation in wanted}
    if not arguments.table:
        _run([planned[ablation.name] for ablation in (reversed(wanted) if arguments.reverse else wanted)])
    write(_table(planned))


def _cells(ablation: Ablation, arguments: argparse.Namespace) -> list[Cell]:
    options = RunOptions(
        arguments.runs, seed=ablation.seed, preset="quick", settings={"steps": arguments.steps, **ablation.settings}
    )
    sets = prepared_sets(arguments.data)
    targets = [dataset for dataset in sets if dataset.name in arguments.targets]
    return cells(method_info("d24fad"), targets, sets, [arguments.shots], options)


def _run(planned: Sequence[Sequence[Cell]]) -> None:
    runner = Runner("cpu")
    for line in planned:
        for cell in line:
            row, _ = runner.run(cell)
            print(f"{row.run_id}: {row.metrics[RANKING.name].value:.3f}", flush=True)


def _table(planned: Mapping[str, Sequence[Cell]]) -> str:
    done = {name: line for name, line in planned.items() if all(_folder(cell).finished for cell in line)}
    names = [cell.target.name for cell in planned[DEFAULT.name]]
    lines = [f"| setting | {' | '.join(names)} | mean | minus default |", f"|---|{'---|' * len(names)}--:|---|"]
    for name, line in done.items():
        rows = [_folder(cell).row() for cell in line]
        lines.append(_line(name, [row.metrics[RANKING.name].value for row in rows], _difference(line, done)))
        if name == DEFAULT.name:
            lines.append(_line("mean of the map as score", [_mean_score(row) for row in rows], ""))
    return "\n".join(lines)


def _line(name: str, values: Sequence[float], difference: str) -> str:
    shown = " | ".join(f"{value:.3f}" for value in values)
    return f"| {name} | {shown} | {fmean(values):.3f} | {difference} |"


def _difference(line: Sequence[Cell], done: Mapping[str, Sequence[Cell]]) -> str:
    """Over these targets; none between seeds, which is a spread of trainings and no property of the images."""
    default = done.get(DEFAULT.name)
    if default is None or line is default or line[0].options.seed != default[0].options.seed:
        return ""
    folders = ([_folder(cell).path for cell in cells] for cells in (line, default))
    return compare(*folders).means[RANKING.name].these_targets.text


def _mean_score(row: Row) -> float:
    return row.secondary[MEAN].value


def _folder(cell: Cell) -> RunFolder:
    return RunFolder(cell.options.runs / cell.run_id)


if __name__ == "__main__":
    main()
