"""`medfsad compare A B --out x.html`: two methods on the same images and draws, as one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medfsad_bench.board.comparison import Comparison
from medfsad_bench.board.pairing import paired_with
from medfsad_bench.board.report import figures
from medfsad_bench.board.report.cases import mean_ranks
from medfsad_bench.board.report.page import rendered, write_page
from medfsad_bench.board.site.cells import command_of
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.image import ScoreMatrix, score_matrix
from medfsad_bench.metrics.metric import IMAGE_AUROC, title_of
from medfsad_bench.metrics.paired import Difference
from medfsad_bench.results.run_folder import RunFolder

_CHANGED = 10  # queries that are listed


@dataclass(frozen=True, slots=True)
class TargetView:
    """What the page shows of one target beside the differences.

    Attributes:
        name: Of the target.
        ranks: Of every query by both methods.
        draws: AUROC of every draw by both.
        differences: By metric, as a picture.
        changed: Queries that the two see most differently: id, what it is, rank by the first, by the second.
        commands: That repeat both runs.
    """

    name: str
    ranks: figures.Picture
    draws: figures.Picture
    differences: figures.Picture
    changed: list[tuple[str, str, float, float]]
    commands: tuple[str, str]


def write_pair_report(first: Sequence[Path], second: Sequence[Path], comparison: Comparison, path: Path) -> None:
    """Write the comparison whole or not at all.

    Args:
        first: Folders of one method's runs, one per target.
        second: Of the other's.
        comparison: Of these.
        path: HTML to write.
    """
    by_target = [{RunFolder(path).row().target: RunFolder(path) for path in paths} for paths in (first, second)]
    names = comparison.first, comparison.second
    views = [
        _view(by_target[0][target.target], by_target[1][target.target], names, target.differences)
        for target in comparison.targets
    ]
    aurocs = {target.target: target.differences[IMAGE_AUROC.name] for target in comparison.targets}
    overview = None
    if len(aurocs) > 1:
        overview = _differences_picture(
            aurocs, text=f"Difference of image AUROC on each target, {names[0]} minus {names[1]}, with 95 % intervals"
        )
    means = {
        "Mean, for other images and draws of these targets": {
            name: mean.these_targets for name, mean in comparison.means.items()
        },
        "Mean, for other targets like these": {
            name: mean.other_targets for name, mean in comparison.means.items() if mean.other_targets is not None
        },
    }
    html = rendered("pair.html.jinja", comparison=comparison, views=views, overview=overview, means=means)
    write_page(path, html)


def _view(
    folder: RunFolder, other: RunFolder, names: tuple[str, str], differences: Mapping[str, Difference]
) -> TargetView:
    rows = folder.row(), other.row()
    first = score_matrix(folder.scores())
    second = paired_with(first, score_matrix(other.scores()))
    ranks = mean_ranks(first), mean_ranks(second)
    labels = _distinct(names)
    draws = {
        label: [IMAGE_AUROC.score(draw, matrix.anomalous) for draw in matrix.scores]
        for label, matrix in zip(labels, (first, second), strict=True)
    }
    target = rows[0].target
    by_title = {title_of(name): difference for name, difference in differences.items()}
    return TargetView(
        target,
        figures.ranks_picture(
            ranks,
            first.anomalous,
            labels,
            text=f"Rank of every test image of {target} by both methods, normal and anomalous apart",
        ),
        figures.draws_picture(
            draws,
            {label: row.metrics[IMAGE_AUROC.name] for label, row in zip(labels, rows, strict=True)},
            text=f"Image AUROC on {target}, draw by draw; equal draws are joined",
        ),
        _differences_picture(by_title, text=f"Differences on {target} by metric with 95 % intervals"),
        _most_changed(first, ranks),
        (command_of(rows[0]), command_of(rows[1])),
    )


def _distinct(names: tuple[str, str]) -> tuple[str, str]:
    """Two names for a figure, also where a method is compared with another setting of itself."""
    return names if names[0] != names[1] else (f"{names[0]}, first", f"{names[1]}, second")


def _differences_picture(differences: Mapping[str, Difference], *, text: str) -> figures.Picture:
    estimates = {
        name: Estimate(value=difference.value, low=difference.low, high=difference.high)
        for name, difference in differences.items()
    }
    return figures.estimates_picture(estimates, label="difference, first minus second", neutral=0.0, text=text)


def _most_changed(matrix: ScoreMatrix, ranks: tuple[np.ndarray, np.ndarray]) -> list[tuple[str, str, float, float]]:
    table: pd.DataFrame = matrix.queries.assign(first=ranks[0], second=ranks[1])
    order = np.argsort(-np.abs(ranks[0] - ranks[1]), kind="stable")[:_CHANGED]
    return [
        (str(row["id"]), str(row["disease"]) if row["anomalous"] else "normal", row["first"], row["second"])
        for row in table.iloc[order].to_dict("records")
    ]
