"""What would make dual distillation win: other maps and poolings of trained weights, and other trainings.

Weights are those of `medfsad run d24fad`, or of a training of `d24fad_trainings.py`, which is run first and goes on
where it was broken off.

    medfsad run d24fad multistage --preset quick --shots 4
    PYTHONPATH=tests python -m bench.beyond_d24fad --data medfsad-data --runs medfsad-runs [--training paper position]
        [--into methods/d24fad/RESULTS.md]

One line per variant and training: strict image AUROC of each target, their mean, and the mean difference from `d24fad`
and from `multistage` on the same images and draws, with its 95 % interval for these targets. Lines `chosen on the
other targets` take for each target the variant that has the best mean on those that share no images with it: of one
training, and of all. The teacher sees 128 px here, as the student does; `multistage` sees 256.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from bench.d24fad_trainings import TRAININGS
from einops import einsum
from torch import Tensor
from torch.nn import functional

from d24fad.detector import D24FAD
from d24fad.networks import Networks
from d24fad.weighting import shared_weights
from medfsad_baselines.parts.maps import cosine_distance, enlarged, top_mean
from medfsad_baselines.parts.patches import MemoryBank
from medfsad_bench.board.sections import writer
from medfsad_bench.board.significance import family_of
from medfsad_bench.display import markdown_table
from medfsad_bench.estimates.image import ScoreMatrix, score_matrix
from medfsad_bench.info import MethodInfo
from medfsad_bench.metrics.delong import delong, placements
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.metrics.paired import Difference, difference_of, mean_over_targets
from medfsad_bench.registry import method_info
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.images import shown_images
from medfsad_bench.runner.maps import smooth_maps
from medfsad_bench.runner.opened import OpenCell, opened
from medfsad_bench.runner.plan import Cell, RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.store_choice import chosen_store
from medfsad_bench.runner.training import train
from medfsad_bench.store.prepared import prepared_sets

GRID, PATCHES, BATCH = 32, 16, 64
CHOSEN = "chosen on the other targets"
Scales = list[Tensor]
Distances = Callable[[Scales, Scales], Tensor]  # of queries and supports: [scales, n, GRID, GRID]


@dataclass(frozen=True)
class Variant:
    """A map and its pooling.

    Attributes:
        name: Of its line.
        parts: Names of maps, see `_maps`, which are averaged.
        even: Whether each scale of each map is divided first by its mean over the supports, each against the others.
        top: Whether the score is the mean of the highest 5 % of the map; else the maximum of the smoothed map.
    """

    name: str
    parts: tuple[str, ...]
    even: bool = False
    top: bool = True

    @property
    def trained(self) -> bool:
        """Whether it takes a student's maps."""
        return any(part.startswith("student") for part in self.parts)


VARIANTS = (
    Variant("maximum, as it is", ("student mixture",), top=False),
    Variant("highest 5 %", ("student mixture",)),
    Variant("weights divided by √(C·H·W)", ("student mixture, soft",)),
    Variant("uniform weights", ("student mixture, uniform",)),
    Variant("each scale even", ("student mixture, soft",), even=True),
    Variant("nearest support patch", ("student nearest",)),
    Variant("nearest support patch, each scale even", ("student nearest",), even=True),
    Variant("teacher alone, uniform weights", ("teacher mixture",)),
    Variant("teacher alone, nearest patch", ("teacher nearest",)),
    Variant("teacher alone, nearest patch, even", ("teacher nearest",), even=True),
    Variant("student and teacher, mixture", ("student mixture, soft", "teacher mixture")),
    Variant("student and teacher, nearest patch", ("student nearest", "teacher nearest")),
    Variant("student and teacher, nearest patch, even", ("student nearest", "teacher nearest"), even=True),
    Variant("student's mixture, teacher's nearest, even", ("student mixture, soft", "teacher nearest"), even=True),
)


def main() -> None:
    """Score all variants, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("medfsad-data"))
    parser.add_argument("--runs", type=Path, default=Path("medfsad-runs"))
    parser.add_argument("--features", help="folder of features; by default that in the folder of runs")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--training", choices=TRAININGS, nargs="+", default=["paper"])
    parser.add_argument("--into", type=Path, metavar="PAGE", help="page with a part `beyond d24fad`")
    arguments = parser.parse_args()
    write = writer(arguments.into, "beyond d24fad")
    torch.set_flush_denormal(True)
    planned = {name: _cells(method_info(name), arguments) for name in ("d24fad", "multistage")}
    runner = Runner("cpu", store=chosen_store(arguments.features, None, arguments.runs, "cpu"))
    matrices = {name: [_matrix(cell) for cell in line] for name, line in planned.items()}
    trainings = {name: _cells(TRAININGS[name], arguments) for name in arguments.training}
    scored = [[_scores(cell, runner) for cell in line] for line in trainings.values()]
    tried = [[scores for part in parts for scores in part] for parts in zip(*scored, strict=True)]
    rows = [_folder(cell).row() for cell in planned["d24fad"]]
    table = Table([row.target for row in rows], [family_of(row) for row in rows], matrices)
    for name, of_targets in matrices.items():
        table.add(name, [matrix.scores for matrix in of_targets])
    for number, training in enumerate(trainings):
        of_training = scored[number]
        for position, variant in enumerate(VARIANTS):
            if variant.trained or number == 0:  # the teacher's own maps are the same in all
                table.add(f"{training}: {variant.name}", [scores[position] for scores in of_training])
        table.add(f"{training}: {CHOSEN}", table.chosen(of_training))
    if len(trainings) > 1:
        table.add(f"all trainings: {CHOSEN}", table.chosen(tried))
    write(table.markdown())


class Table:
    """Lines of AUROCs beside differences from two methods."""

    def __init__(
        self, targets: Sequence[str], families: Sequence[str], matrices: Mapping[str, Sequence[ScoreMatrix]]
    ) -> None:
        self._targets, self._families, self._matrices = targets, families, matrices
        self._truth = next(iter(matrices.values()))
        self._lines: list[list[str]] = []

    def markdown(self) -> str:
        """The lines so far."""
        minus = [f"minus {name}" for name in self._matrices]
        return markdown_table(["variant", *self._targets, "mean", *minus], self._lines)

    def add(self, name: str, scores: Sequence[np.ndarray]) -> None:
        """One variant, with its scores [draws, n] of each target."""
        values = self.aurocs(scores)
        minus = [_shown(self._difference(scores, others)) for others in self._matrices.values()]
        self._lines.append([name, *(f"{value:.3f}" for value in values), f"{fmean(values):.3f}", *minus])

    def aurocs(self, scores: Sequence[np.ndarray]) -> list[float]:
        """Mean over draws, of each target."""
        pairs = zip(scores, self._truth, strict=True)
        return [fmean(float(auroc_score(draw, truth.anomalous)) for draw in of_target) for of_target, truth in pairs]

    def chosen(self, tried: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Scores of each target by the variant that has the best mean on the others, sharing no images with it."""
        values = np.array([self.aurocs([scores[number] for scores in tried]) for number in range(len(tried[0]))])
        families = np.array(self._families)
        return [
            scores[int(values[:, families != family].mean(axis=1).argmax())]
            for family, scores in zip(families, tried, strict=True)
        ]

    def _difference(self, scores: Sequence[np.ndarray], others: Sequence[ScoreMatrix]) -> Difference:
        differences = []
        for ours, truth, theirs in zip(scores, self._truth, others, strict=True):
            placed = placements(ours, truth.anomalous) - placements(theirs.scores, truth.anomalous)
            differences.append(difference_of(delong(placed, truth.anomalous, truth.groups)))
        return mean_over_targets(differences, families=self._families).these_targets


def _cells(info: MethodInfo, arguments: argparse.Namespace) -> list[Cell]:
    sets = prepared_sets(arguments.data)
    targets = [dataset for dataset in sets if not arguments.targets or dataset.name in arguments.targets]
    return cells(info, targets, sets, [arguments.shots], RunOptions(arguments.runs, preset="quick"))


def _matrix(cell: Cell) -> ScoreMatrix:
    return score_matrix(_folder(cell).scores())


def _folder(cell: Cell) -> RunFolder:
    return RunFolder(cell.options.runs / cell.run_id)


def _shown(difference: Difference) -> str:
    if difference.low is None or not difference.error:
        return f"{difference.value:+.3f}"
    return difference.text


def _scores(cell: Cell, runner: Runner) -> list[np.ndarray]:
    """Scores [draws, n] of every variant, of the trained weights on one target, in the order of the stored ones."""
    with opened(cell, runner.device, runner.cache, lambda *_: None) as run, torch.no_grad():
        train(run)
        query = features_of(run, run.queries)
        by_draw = []
        for draw in range(cell.options.draws):
            support = features_of(run, shown_images(cell.target, cell.episodes.support(draw), run.context.device))
            by_draw.append(_of_draw(run, query, support))
        print(f"{cell.target.name}: {len(run.queries)} queries", file=sys.stderr, flush=True)
    order = np.argsort(cell.episodes.queries)
    return [np.stack(of_variant)[:, order] for of_variant in zip(*by_draw, strict=True)]


def features_of(run: OpenCell, images: Tensor, networks: Networks | None = None) -> dict[str, Scales]:
    """Three scales of the teacher's and of the student's features, of the method's own student or of another."""
    method = run.method
    assert isinstance(method, D24FAD)
    networks = networks or method._networks
    assert networks is not None
    branches: dict[str, list[Sequence[Tensor]]] = {"teacher": [], "student": []}
    for batch in images.split(BATCH):
        shown = batch.float() / 255 if batch.dtype == torch.uint8 else batch
        stages = method.teacher(shown, run.context)
        branches["teacher"].append(stages[:3])
        branches["student"].append(networks.eval().decode(stages[3]))
    return {name: [torch.cat(scale) for scale in zip(*parts, strict=True)] for name, parts in branches.items()}


def _of_draw(run: OpenCell, query: dict[str, Scales], support: dict[str, Scales]) -> list[np.ndarray]:
    distances = _distances_of(run)
    needed = {part for variant in VARIANTS for part in variant.parts}
    maps = {part: _maps(distances[part], query, support, part) for part in needed}
    means = {part: _mean_over_supports(distances[part], support, part) for part in needed}
    scores = []
    for variant in VARIANTS:
        parts = [maps[part] / (means[part] if variant.even else 1) for part in variant.parts]
        joined = torch.stack([part.sum(0) for part in parts]).mean(0)
        scores.append(top_mean(joined, 0.05) if variant.top else smooth_maps(joined, 256).flatten(1).amax(1))
    return [values.double().numpy() for values in scores]


def _distances_of(run: OpenCell) -> dict[str, Distances]:
    """How each map compares queries with supports."""
    method = run.method
    assert isinstance(method, D24FAD)
    assert method._networks is not None
    weight = method._networks.weight

    def mixture(weigh: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> Distances:
        def distances(query: Scales, support: Scales) -> Tensor:
            scales = []
            for number, (q, key, s) in enumerate(zip(query, weight.keys(support), support, strict=True)):
                mixed = einsum(weigh(number, q, key, s), s, "n k, k c h w -> n c h w")
                scales.append(enlarged(cosine_distance(q, mixed), GRID))
            return torch.stack(scales)

        return distances

    def soft(_: int, q: Tensor, key: Tensor, __: Tensor) -> Tensor:
        return (q.flatten(1) @ key.flatten(1).T / q[0].numel() ** 0.5).softmax(1)

    learned = mixture(lambda _, q, key, s: shared_weights(q, key, s, "learned"))
    uniform = mixture(lambda _, q, key, s: shared_weights(q, key, s, "uniform"))
    return {
        "student mixture": learned,
        "student mixture, soft": mixture(soft),
        "student mixture, uniform": uniform,
        "student nearest": _nearest,
        "teacher mixture": uniform,
        "teacher nearest": _nearest,
    }


def _nearest(query: Scales, support: Scales) -> Tensor:
    """1 − cos to the nearest patch of any support, which is half the squared distance of unit vectors.

    Finer scales are averaged to the grid of the middle one, as `multistage` does.
    """
    scales = []
    for q, s in zip(query, support, strict=True):
        unit_q, unit_s = (_unit_grid(part) for part in (q, s))
        bank = MemoryBank(unit_s.flatten(0, 2))
        scales.append(enlarged(torch.stack([bank.distances_of(grid) for grid in unit_q]).square() / 2, GRID))
    return torch.stack(scales)


def _unit_grid(scale: Tensor) -> Tensor:
    coarse = functional.adaptive_avg_pool2d(scale, min(PATCHES, scale.shape[-1]))
    return functional.normalize(coarse, dim=1).permute(0, 2, 3, 1).contiguous()


def _maps(distances: Distances, query: dict[str, Scales], support: dict[str, Scales], part: str) -> Tensor:
    branch = part.split()[0]
    return distances(query[branch], support[branch])


def _mean_over_supports(distances: Distances, support: dict[str, Scales], part: str) -> Tensor:
    """Of each scale, [scales, 1, 1, 1]: each support against the others."""
    scales, count = support[part.split()[0]], len(support["student"][0])
    means = []
    for left_out in range(count):
        kept = [index for index in range(count) if index != left_out]
        means.append(distances([s[left_out, None] for s in scales], [s[kept] for s in scales]).mean((1, 2, 3)))
    return torch.stack(means).mean(0)[:, None, None, None]


if __name__ == "__main__":
    main()
