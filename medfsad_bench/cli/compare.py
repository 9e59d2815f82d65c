"""`medfsad compare`: whether two methods differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from medfsad_bench.cli.console import out, print_json

if TYPE_CHECKING:
    from medfsad_bench.board.comparison import Comparison
    from medfsad_bench.metrics.paired import Difference


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)


def compare(
    first: Annotated[str, typer.Argument(help="Folder of a run, or a method whose runs lie in --runs.")],
    second: Annotated[str, typer.Argument(help="The same of the other.")],
    runs: Annotated[Path, typer.Option(help="Where the runs of named methods lie.")] = Path("medfsad-runs"),
    shots: Annotated[int, typer.Option(min=1, help="K of named methods.")] = 4,
    preset: Annotated[str | None, typer.Option(help="Preset of named methods, if there are several.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of named methods.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare two runs, or two methods over all targets, on the same images and draws; first minus second."""
    from medfsad_bench.board.comparison import as_json, find_runs
    from medfsad_bench.board.comparison import compare as compared

    sides = [
        [Path(name)]
        if (Path(name) / "row.json").is_file() or "/" in name
        else find_runs(runs, name, shots=shots, preset=preset, seed=seed)
        for name in (first, second)
    ]
    found = compared(*sides)
    if json_:
        print_json(as_json(found))
        return
    for table in _tables(found):
        out.print(table)


def _tables(found: "Comparison") -> list[Table]:
    title = f"{found.first} minus {found.second}, {found.shots} shots"
    tables = []
    if len(found.targets) == 1:
        only = found.targets[0]
        table = _table(f"{title}, {only.target}", "figure")
        for name, difference in only.differences.items():
            table.add_row(name, *_cells(difference))
        table.add_row("image_auroc by DeLong", *_cells(only.delong), style="dim")
        table.caption = _CAPTION
        return [table]
    table = _table(f"{title}: image AUROC", "target")
    for one in found.targets:
        table.add_row(one.target, *_cells(one.differences["image_auroc"]))
    tables.append(table)
    table = _table(f"{title}: mean over {len(found.targets)} targets", "figure, for")
    for name, mean in found.means.items():
        table.add_row(f"{name}, these", *_cells(mean.these_targets))
        if mean.other_targets is not None:
            table.add_row(f"{name}, others", *_cells(mean.other_targets))
    table.caption = f"{_CAPTION} `these`: other images and draws of these targets; `others`: other targets like them."
    return [*tables, table]


_CAPTION = (
    "Effect: difference of √2 Φ⁻¹(AUROC), Cohen's d of the scores. image_auroc is the primary figure; p values of "
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
    return [f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]", p, effect]
