"""`medfsad compare`: whether two methods differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from medfsad_bench.cli.console import difference_text, out, print_json
from medfsad_bench.cli.options import RUNS, Json, Runs, Seed, Shots

if TYPE_CHECKING:
    from medfsad_bench.board.comparison import Comparison
    from medfsad_bench.metrics.paired import Difference


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)


def compare(
    first: Annotated[str, typer.Argument(help="Folder of a run, or a method whose runs lie in --runs.")],
    second: Annotated[str, typer.Argument(help="The same of the other.")],
    runs: Runs = RUNS,
    shots: Shots = 4,
    preset: Annotated[str | None, typer.Option(help="Preset of named methods, if there are several.")] = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Compare two runs, or two methods over all targets, on the same images and draws; first minus second."""
    from medfsad_bench.board.comparison import as_json
    from medfsad_bench.board.comparison import compare as compared

    sides = [_runs_of(name, runs, shots, preset, seed) for name in (first, second)]
    comparison = compared(*sides)
    if json_:
        print_json(as_json(comparison))
        return
    for table in _tables(comparison):
        out.print(table)


def _runs_of(name: str, runs: Path, shots: int, preset: str | None, seed: int) -> list[Path]:
    """The one run whose folder was named, or all runs of the named method."""
    from medfsad_bench.board.comparison import find_runs
    from medfsad_bench.results.run_folder import RunFolder

    if "/" in name or RunFolder(Path(name)).finished:
        return [Path(name)]
    return find_runs(runs, name, shots=shots, preset=preset, seed=seed)


def _tables(comparison: "Comparison") -> list[Table]:
    title = f"{comparison.first} minus {comparison.second}, {comparison.shots} shots"
    if len(comparison.targets) == 1:
        (only,) = comparison.targets
        table = _table(f"{title}, {only.target}", "metric")
        for name, difference in only.differences.items():
            table.add_row(name, *_cells(difference))
        table.add_row("image_auroc by DeLong", *_cells(only.delong), style="dim")
        table.caption = _CAPTION
        return [table]
    by_target = _table(f"{title}: image AUROC", "target")
    for target in comparison.targets:
        by_target.add_row(target.target, *_cells(target.differences["image_auroc"]))
    mean = _table(f"{title}: mean over {len(comparison.targets)} targets", "metric, for")
    for name, mean_difference in comparison.means.items():
        mean.add_row(f"{name}, these", *_cells(mean_difference.these_targets))
        if mean_difference.other_targets is not None:
            mean.add_row(f"{name}, others", *_cells(mean_difference.other_targets))
    mean.caption = f"{_CAPTION} `these`: other images and draws of these targets; `others`: other targets like them."
    return [by_target, mean]


_CAPTION = (
    "Effect: difference of √2 Φ⁻¹(AUROC), Cohen's d of the scores. image_auroc is the primary metric; p values of "
    "the others aren't corrected for their number."
)


def _table(title: str, first: str) -> Table:
    table = Table(title=title)
    table.add_column(first, overflow="fold")
    for column in ("difference [95 %]", "p", "effect"):
        table.add_column(column, no_wrap=True)
    return table


def _cells(difference: "Difference") -> list[str]:
    p = "< 0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
    effect = "" if difference.effect is None else f"{difference.effect:+.2f}"
    return [difference_text(difference), p, effect]
