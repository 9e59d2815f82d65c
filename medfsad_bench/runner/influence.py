"""Which support image helps and which one hurts: every query scored once more without each of them.

The influence of a support is the AUROC of all K minus that of the other K - 1: above 0 where it helps. Its interval is
over groups of queries, for these very supports.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from medfsad_bench.errors import MethodError
from medfsad_bench.estimates.estimate import REPLICATES
from medfsad_bench.files import whole
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.paired import Difference, paired_difference
from medfsad_bench.metrics.resample import group_keys
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.opened import Progress, opened
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.runner.training import train


@dataclass(frozen=True, slots=True)
class Influence:
    """One support of one draw.

    Attributes:
        draw: Which draw.
        position: Of the support within it.
        id: Of its image.
        anomalous: Whether it is one of the contaminated supports.
        auroc: Of the draw, with all supports.
        difference: With it minus without it.
    """

    draw: int
    position: int
    id: str
    anomalous: bool
    auroc: float
    difference: Difference


def leave_one_out(
    cell: Cell, draws: Sequence[int], device: torch.device, cache: FeatureCache, *, progress: Progress
) -> list[Influence]:
    """Influence of every support of some draws, within a draw from the one that hurts most to the one that helps most.

    Args:
        cell: Method, target and K.
        draws: Which draws.
        device: Where to compute.
        cache: Of features.
        progress: Told of training and scoring.

    Raises:
        MethodError: If there is but one support.
    """
    if cell.shots < 2:
        raise MethodError("--shots 1 leaves no support when one is left out. Expected two or more.")
    with opened(cell, device, cache, progress) as run:
        train(run)
        steps = itertools.count(1)

        def scores(draw: int, without: int | None) -> Float64[np.ndarray, "1 n"]:
            values = score_draw(run, draw, without=without).columns["score"][None].astype(np.float64)
            progress("scoring", next(steps), len(draws) * (cell.shots + 1), {})
            return values

        by_draw = {draw: [scores(draw, without) for without in (None, *range(cell.shots))] for draw in draws}
    return [influence for draw in draws for influence in _influences(cell, draw, by_draw[draw])]


def _influences(cell: Cell, draw: int, scores: Sequence[Float64[np.ndarray, "1 n"]]) -> list[Influence]:
    """Of the scores with all supports, then without the first of them, without the second, ….

    The one that hurts most comes first.
    """
    queries = cell.episodes.queries
    anomalous = cell.target.table["label"].to_numpy(bool)[queries]
    groups = group_keys(cell.target.table["group"].iloc[queries])
    whole, *without = (
        replicate(values, anomalous, groups, replicates=REPLICATES, seed=cell.options.seed) for values in scores
    )
    supports = cell.target.table.iloc[cell.episodes.support(draw)]
    images = zip(without, supports["id"].astype(str), supports["label"].astype(bool), strict=True)
    influences = [
        Influence(draw, position, id_, label, whole.mean, paired_difference(whole, others))
        for position, (others, id_, label) in enumerate(images)
    ]
    return sorted(influences, key=lambda influence: influence.difference.value)


def write_influences(cell: Cell, influences: Sequence[Influence], path: Path) -> None:
    """Draw the supports with their influence: one line per draw, the one that hurts most first.

    Args:
        cell: What was measured.
        influences: As `leave_one_out` returns them.
        path: PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    draws = list(dict.fromkeys(influence.draw for influence in influences))
    figure = Figure(figsize=(1.55 * cell.shots + 0.4, 1.95 * len(draws) + 0.6), layout="constrained")
    panels = figure.subplots(len(draws), cell.shots, squeeze=False)
    figure.suptitle(
        f"{cell.info.name} on {cell.target.name}, {cell.shots} shots: what each support adds to AUROC [95 %]",
        fontsize=9,
        wrap=True,
    )
    for line, draw in zip(panels, draws, strict=True):
        of_draw = [influence for influence in influences if influence.draw == draw]
        images = cell.target.images(cell.episodes.support(draw))
        for axis, influence in zip(line, of_draw, strict=True):
            image: UInt8[np.ndarray, "s s 3"] = images[influence.position]
            axis.imshow(image)
            axis.set_axis_off()
            low, high = influence.difference.low, influence.difference.high
            ends = "no interval" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
            axis.set_title(f"{influence.difference.value:+.3f}\n{ends}", fontsize=7)
            surely_helps, surely_hurts = low is not None and low > 0, high is not None and high < 0
            colour = "tab:red" if surely_hurts else "tab:green" if surely_helps else "0.7"
            edge = image.shape[0] - 1
            axis.add_patch(Rectangle((0, 0), edge, edge, fill=False, edgecolor=colour, linewidth=3))
            note = f"{influence.id}, an anomaly" if influence.anomalous else influence.id
            axis.text(0.5, -0.03, note, transform=axis.transAxes, fontsize=5, ha="center", va="top")
        line[0].text(
            -0.06, 0.5, f"draw {draw}", transform=line[0].transAxes, fontsize=7, ha="right", va="center", rotation=90
        )
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110)
