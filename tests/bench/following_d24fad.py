"""Whether the student of D²4FAD follows its teacher, on images of the target, and how near it could come.

    medfsad curve d24fad --preset laptop --data data-128
    PYTHONPATH=tests python -m bench.following_d24fad --data data-128 --into methods/d24fad/RESULTS.md

Uses the weights that `medfsad curve` or `medfsad run` left among the runs; a target without them is trained first. One
line a target. Each figure is a sum over the three scales of 1 − cos of whole maps, averaged over the queries, as in the
loss: 0 where two are alike, 3 where they have nothing in common.

From the teacher:
    trained, untrained   the student's maps
    one map for all      the mean of the teacher's maps over the queries, cut at 0 as the student's are
    nearest possible     the teacher's own maps, cut at 0: no student that ends in a ReLU is nearer
Between two images (each query and the next): the trained student's, the untrained student's and the teacher's maps.
"""

import argparse
from pathlib import Path

import torch
from bench.beyond_d24fad import features_of

from d24fad.detector import D24FAD
from d24fad.info import INFO
from d24fad.losses import cosine_loss
from d24fad.networks import new_networks
from medfsad_bench.board.sections import writer
from medfsad_bench.display import markdown_table
from medfsad_bench.runner.opened import OpenCell, opened
from medfsad_bench.runner.plan import RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.training import train
from medfsad_bench.store.prepared import prepared_sets

HEAD = (
    "target",
    "trained",
    "untrained",
    "one map for all",
    "nearest possible",
    "two images: trained",
    "untrained",
    "teacher",
)
SHOTS, PART = 4, "following d24fad"


def main() -> None:
    """Measure every target, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("medfsad-data"))
    parser.add_argument("--runs", type=Path, default=Path("medfsad-runs"))
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--into", type=Path, help="page with a part `following d24fad`, to be written anew")
    arguments = parser.parse_args()
    write = writer(arguments.into, PART)
    torch.set_flush_denormal(True)
    sets = prepared_sets(arguments.data)
    targets = [dataset for dataset in sets if not arguments.targets or dataset.name in arguments.targets]
    runner, lines = Runner("cpu"), []
    for cell in cells(INFO, targets, sets, [SHOTS], RunOptions(arguments.runs, preset=arguments.preset)):
        with opened(cell, runner.device, runner.cache, lambda *_: None) as run:
            lines.append([cell.target.name, *(f"{value:.2f}" for value in nearness(run))])
    write(markdown_table(list(HEAD), lines))


@torch.no_grad()
def nearness(run: OpenCell) -> list[float]:
    """The figures of one line."""
    train(run)
    method = run.method
    assert isinstance(method, D24FAD)
    stages = method.teacher(run.queries[:1].float(), run.context)  # for their shapes
    features = features_of(run, run.queries)
    teacher, trained = features["teacher"], features["student"]
    untrained = features_of(run, run.queries, new_networks(stages, method.config, seed=run.context.seed))["student"]
    one_for_all = [scale.mean(0, keepdim=True).clamp(min=0).expand_as(scale) for scale in teacher]
    nearest = [scale.clamp(min=0) for scale in teacher]
    of_pairs = [cosine_loss(scales, [scale.roll(1, 0) for scale in scales]) for scales in (trained, untrained, teacher)]
    from_teacher = [cosine_loss(scales, teacher) for scales in (trained, untrained, one_for_all, nearest)]
    return [float(value) for value in (*from_teacher, *of_pairs)]


if __name__ == "__main__":
    main()
