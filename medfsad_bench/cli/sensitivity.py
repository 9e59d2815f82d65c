"""`medfsad robustness` and `influence`: how much a method's AUROC depends on its supports."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cells import existing, planned, run_cells, title_of
from medfsad_bench.cli.console import Bars, difference_text, markdown_table, out, print_json, progress_bar
from medfsad_bench.errors import MethodError

if TYPE_CHECKING:
    from medfsad_bench.board.robustness import Point
    from medfsad_bench.runner.influence import Influence


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(robustness)
    app.command()(influence)


def robustness(
    method: opt.Methods,
    shots: opt.ShotsList = None,
    contaminated: Annotated[
        list[int] | None, typer.Option(min=1, help="How many of the K are anomalies; repeatable. 1 by default.")
    ] = None,
    target: opt.Targets = None,
    draws: opt.Draws = None,
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    settings: opt.Settings = None,
    out_png: opt.Picture = Path("robustness.png"),
    format_: opt.Shown = "table",
    json_: opt.Json = False,
) -> None:
    """Show what an unnoticed anomaly among the supports does: contaminated minus clean, on the same queries."""
    from medfsad_bench.board.robustness import as_json, means, measure, write_curves
    from medfsad_bench.runner.plan import RunOptions

    options = RunOptions(
        runs, draws=opt.draws_of(draws), seed=seed, preset=preset, settings=settings_of(settings, backbone, weights)
    )
    clean = planned(method, target, sorted(set(shots or [4])), options, data=data, benchmark=benchmark)
    with_anomalies = existing(
        [
            replace(cell, options=replace(options, contaminated=count))
            for cell in clean
            for count in sorted(set(contaminated or [1]))
        ]
    )
    pairs = [(replace(cell, options=options), cell) for cell in with_anomalies]
    by_id = {cell.run_id: cell for pair in pairs for cell in pair}
    run_cells(list(by_id.values()), device)
    points = [measure(*(runs / cell.run_id for cell in pair)) for pair in pairs]
    points += means(points)
    write_curves(points, out_png)
    if json_ or format_ == "json":
        print_json(as_json(points))
    elif format_ == "md":
        out.file.write(markdown_table(_COLUMNS, map(_line, points)))
    else:
        out.print(_curves_table(points))
        out.print(f"wrote {out_png}")


def influence(
    method: opt.Method,
    target: Annotated[str, typer.Option(help="Data set to test on.")],
    shots: opt.Shots = 4,
    draw: Annotated[list[int] | None, typer.Option(min=0, max=9, help="Which draw; repeatable. 0 by default.")] = None,
    contaminated: opt.Contaminated = 0,
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    checkpoint: opt.Checkpoint = None,
    settings: opt.Settings = None,
    out_png: opt.Picture = Path("influence.png"),
    json_: opt.Json = False,
) -> None:
    """Leave each support out once: which image helps the method, and which one hurts it."""
    from medfsad_bench.runner.influence import leave_one_out, write_influences
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.runner import Runner

    if target == "all":
        raise MethodError("--target all is more than one picture can show. Name one data set.")
    draws = sorted(set(draw or [0]))
    options = RunOptions(
        runs,
        draws=draws[-1] + 1,
        seed=seed,
        preset=preset,
        settings=opt.settings_of(settings, backbone, weights),
        checkpoint=checkpoint,
        contaminated=contaminated,
    )
    (cell,) = planned([method], [target], [shots], options, data=data, benchmark=benchmark)
    runner = Runner(device)
    runner.announce([cell])
    with progress_bar() as progress:
        bars = Bars(progress)
        influences = leave_one_out(cell, draws, runner.device, runner.cache, progress=bars.following(title_of(cell)))
        bars.finish()
    write_influences(cell, influences, out_png)
    if json_:
        print_json([asdict(support) for support in influences])
        return
    out.print(_influences_table(influences, title_of(cell)))
    out.print(f"wrote {out_png}")


def _curves_table(points: "Sequence[Point]") -> Table:
    table = Table(
        title="image AUROC, clean and contaminated, on the same queries", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for point in points:
        table.add_row(*_line(point))
    table.caption = "M of K supports are anomalies nobody noticed; below 0 they do harm. A clean row has more queries."
    return table


_COLUMNS = ("method", "target", "M of K", "clean", "with M", "difference [95 %]")


def _line(point: "Point") -> list[str]:
    return [
        point.method,
        point.target or "mean",
        point.case,
        f"{point.clean.value:.3f}",
        f"{point.spoilt.value:.3f}",
        difference_text(point.difference),
    ]


def _influences_table(influences: "Sequence[Influence]", title: str) -> Table:
    table = Table(title=f"{title}: AUROC with each support minus without it")
    for column in ("draw", "AUROC", "support", "influence [95 %]"):
        table.add_column(column, overflow="fold")
    draw_before = -1
    for support in influences:
        first_of_draw = support.draw != draw_before
        draw_before = support.draw
        table.add_row(
            str(support.draw) if first_of_draw else "",
            f"{support.auroc:.3f}" if first_of_draw else "",
            support.id + (" (an anomaly)" if support.anomalous else ""),
            difference_text(support.difference),
        )
    table.caption = "Above 0: it helps. Intervals are for other test images, with these supports."
    return table
