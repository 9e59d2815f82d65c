"""Which support image helps and which one hurts: every query scored once more without each of them.

The influence of a support is the AUROC of all K minus that of the other K - 1: above 0 where it helps. Its interval is
over groups of queries, for these very supports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from medfsad_bench.errors import MethodError
from medfsad_bench.estimates.estimate import REPLICATES
from medfsad_bench.metrics.interval import Replicates, replicate
from medfsad_bench.metrics.paired import Difference, paired_difference
from medfsad_bench.runner.context import LocalContext, denormals_flushed
from medfsad_bench.runner.evaluate import Target, score_draw
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.memory import memory_told
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import Progress
from medfsad_bench.runner.training import train


@dataclass(frozen=True, slots=True)
class Influence:
    """One support of one draw.

    Attributes:
        draw: Which draw.
        place: Of the support within it.
        id: Of its image.
        anomalous: Whether it is one of the contaminated supports.
        auroc: Of the draw, with all supports.
        difference: With it minus without it.
    """

    draw: int
    place: int
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
    context = LocalContext(device, cell.options.seed, cache)
    context.on_progress = lambda done, total, figures: progress("training", done, total, figures)
    target = Target(cell.target, device, seed=cell.options.seed, contaminated=cell.options.contaminated, pool=cell.pool)
    known = cell.target.table.iloc[target.rows]
    anomalous = known["label"].to_numpy(bool)
    groups = cell.target.group_numbers[target.rows]
    done, total = 0, len(draws) * (cell.shots + 1)
    found = []
    with memory_told(device, cell.config), denormals_flushed():
        method = cell.info.build(cell.config)
        train(method, cell, context)

        def scores(draw: int, without: int | None) -> Replicates:
            nonlocal done
            result = score_draw(
                method,
                target,
                context,
                draw=draw,
                shots=cell.shots,
                batch_size=cell.options.batch_size,
                without=without,
            )
            done += 1
            progress("scoring", done, total, {})
            one: Float64[np.ndarray, "1 n"] = result.columns["score"][None].astype(np.float64)
            return replicate(one, anomalous, groups, replicates=REPLICATES, seed=cell.options.seed)

        for draw in draws:
            whole = scores(draw, None)
            each = [paired_difference(whole, scores(draw, place)) for place in range(cell.shots)]
            support = cell.target.table.iloc[cell.support(draw)]
            lines = zip(each, support["id"].astype(str), support["label"].astype(bool), strict=True)
            mine = [
                Influence(draw, place, name, label, whole.mean, difference)
                for place, (difference, name, label) in enumerate(lines)
            ]
            found += sorted(mine, key=lambda one: one.difference.value)
    return found


def write_influences(cell: Cell, found: Sequence[Influence], path: Path) -> None:
    """Draw the supports with their influence: a line a draw, from the one that hurts most to the one that helps most.

    Args:
        cell: What was measured.
        found: As `leave_one_out` returns them.
        path: PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    draws = list(dict.fromkeys(one.draw for one in found))
    figure = Figure(figsize=(1.55 * cell.shots + 0.4, 1.95 * len(draws) + 0.6), layout="constrained")
    panels = figure.subplots(len(draws), cell.shots, squeeze=False)
    figure.suptitle(
        f"{cell.info.name} on {cell.target.name}, {cell.shots} shots: what each support adds to AUROC [95 %]",
        fontsize=9,
        wrap=True,
    )
    for line, draw in zip(panels, draws, strict=True):
        mine = [one for one in found if one.draw == draw]
        images = cell.target.images(cell.support(draw))
        for axis, one in zip(line, mine, strict=True):
            image: UInt8[np.ndarray, "s s 3"] = images[one.place]
            axis.imshow(image)
            axis.set_axis_off()
            ends = f"[{one.difference.low:+.3f}, {one.difference.high:+.3f}]"
            axis.set_title(f"{one.difference.value:+.3f}\n{ends}", fontsize=7)
            edge, shown = image.shape[0], _colour(one.difference)
            axis.add_patch(Rectangle((0, 0), edge - 1, edge - 1, fill=False, edgecolor=shown, linewidth=3))
            note = f"{one.id}, an anomaly" if one.anomalous else one.id
            axis.text(0.5, -0.03, note, transform=axis.transAxes, fontsize=5, ha="center", va="top")
        line[0].text(
            -0.06, 0.5, f"draw {draw}", transform=line[0].transAxes, fontsize=7, ha="right", va="center", rotation=90
        )
    temporary = path.with_name(f".{path.name}.tmp.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, dpi=110)
    temporary.replace(path)


def _colour(difference: Difference) -> str:
    """Red where it surely hurts, green where it surely helps."""
    if difference.high < 0:
        return "tab:red"
    return "tab:green" if difference.low > 0 else "0.7"
