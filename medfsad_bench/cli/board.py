"""`medfsad compare`, `show`: two methods side by side, a run as a picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.table import Table

from medfsad_bench.cli.console import err, folded, out, print_json, table_of, unfolded
from medfsad_bench.cli.options import DATA, RUNS, Data, Json, Picture, Runs, Seed, Shots

if TYPE_CHECKING:
    from medfsad_bench.board.comparison import Comparison
    from medfsad_bench.metrics.paired import Difference


def compare(
    first: Annotated[str, typer.Argument(help="Folder of a run, or a method whose runs lie in --runs.")],
    second: Annotated[str, typer.Argument(help="The same of the other.")],
    runs: Runs = RUNS,
    shots: Shots = 4,
    preset: Annotated[str | None, typer.Option(help="Preset of named methods, if there are several.")] = None,
    tuned: Annotated[
        Literal["first", "second", "both"] | None,
        typer.Option(help="Of which named method the rows of `medfsad tune` are meant; of none by default."),
    ] = None,
    seed: Seed = 0,
    page: Annotated[
        Path | None, typer.Option("--out", help="HTML to write as well: one file with figures and every image's rank.")
    ] = None,
    json_: Json = False,
) -> None:
    """Compare two runs, or two methods over all targets, on the same images and draws; first minus second."""
    from medfsad_bench.board.comparison import as_json, find_runs, pairing_runs
    from medfsad_bench.board.comparison import compare as compared
    from medfsad_bench.results.run_folder import RunFolder

    sides = [
        [Path(name)]
        if "/" in name or RunFolder(Path(name)).finished
        else find_runs(runs, name, shots=shots, preset=preset, seed=seed, tuned=tuned in (side, "both"))
        for side, name in (("first", first), ("second", second))
    ]
    firsts, seconds, notes = pairing_runs(*sides)
    for note in notes:
        err.print(f"Note: {note}", markup=False)
    comparison = compared(firsts, seconds)
    if page is not None:
        from medfsad_bench.board.report.pair import write_pair_report

        write_pair_report(firsts, seconds, comparison, page)
        err.print(f"wrote {page}", markup=False)
    if json_:
        print_json(as_json(comparison))
        return
    for table in _comparison_tables(comparison):
        out.print(table)


def show(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run that was made with --save-maps.")],
    out_png: Picture = Path("run.png"),
    data: Data = DATA,
    draw: Annotated[int, typer.Option(min=0, help="Which support draw.")] = 0,
    query: Annotated[list[str] | None, typer.Option(help="Id of a test image; repeatable.")] = None,
    json_: Json = False,
) -> None:
    """Draw queries, their anomaly maps, and the support images with the weight that each had."""
    from medfsad_bench.board.run_picture import write_picture
    from medfsad_bench.results.run_folder import RunFolder
    from medfsad_bench.store.prepared import find_by_digest

    row = RunFolder(run).row()
    dataset = find_by_digest(data, row.membership_digest, size_px=row.size_px)
    shown = write_picture(run, dataset, out_png, draw=draw, ids=query or [])
    if json_:
        print_json({"path": str(out_png), "draw": draw, "queries": shown})
    else:
        out.print(f"wrote {out_png}: {len(shown)} queries of draw {draw}")


def _comparison_tables(comparison: "Comparison") -> list[Table]:
    title = f"{comparison.first} minus {comparison.second}, {comparison.shots} shots"
    caption = (
        "Effect: difference of √2 Φ⁻¹(AUROC), Cohen's d of the scores. image_auroc is the primary metric; p values of "
        "the others aren't corrected for their number."
    )
    if len(comparison.targets) == 1:
        (only,) = comparison.targets
        table = _differences_table(f"{title}, {only.target}", "metric", only.differences.items())
        table.add_row("image_auroc by DeLong", *_difference_cells(only.delong), style="dim")
        table.caption = caption + _without_interval(only.differences.values())
        return [table]
    aurocs = ((target.target, target.differences["image_auroc"]) for target in comparison.targets)
    means = (
        (f"{name}, {population}", difference)
        for name, mean in comparison.means.items()
        for population, difference in (("these", mean.these_targets), ("others", mean.other_targets))
        if difference is not None
    )
    mean_table = _differences_table(f"{title}: mean over {len(comparison.targets)} targets", "metric, for", means)
    mean_table.caption = (
        f"{caption} `these`: other images and draws of these targets; `others`: other targets like them."
        + _without_interval(mean.these_targets for mean in comparison.means.values())
    )
    return [_differences_table(f"{title}: image AUROC", "target", aurocs), mean_table]


def _without_interval(differences: "Iterable[Difference]") -> str:
    reasons = dict.fromkeys(difference.reason for difference in differences if difference.reason)
    return "".join(f" No interval: {reason}" for reason in reasons)


def _differences_table(title: str, first_column: str, differences: "Iterable[tuple[str, Difference]]") -> Table:
    columns = (*folded(first_column), *unfolded("difference [95 %]", "p", "effect"))
    cells = ((name, *_difference_cells(each)) for name, each in differences)
    return table_of(columns, cells, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # fits 80 columns


def _difference_cells(difference: "Difference") -> list[str]:
    p = "–" if difference.p is None else "< 0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
    effect = "" if difference.effect is None else f"{difference.effect:+.2f}"
    return [difference.text, p, effect]
