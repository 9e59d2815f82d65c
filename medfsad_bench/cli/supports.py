"""`medfsad robustness` and `influence`: what a method's figure owes to its supports."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from medfsad_bench.cli.console import Bars, err, out, print_json, progress_bar
from medfsad_bench.cli.run import one_of, prepared_targets, run_cells, settings_of
from medfsad_bench.errors import MethodError, StoreError

if TYPE_CHECKING:
    from medfsad_bench.board.robustness import Point
    from medfsad_bench.runner.influence import Influence


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(robustness)
    app.command()(influence)


def robustness(
    method: Annotated[list[str], typer.Argument(help="Names of methods; `medfsad methods` lists them.")],
    shots: Annotated[list[int] | None, typer.Option(min=2, help="K; repeatable. 4 by default.")] = None,
    contaminated: Annotated[
        list[int] | None, typer.Option(min=1, help="How many of the K are anomalies; repeatable. 1 by default.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Data set to test on, or `all`; repeatable.")] = None,
    draws: Annotated[int, typer.Option(min=1, max=10, help="Support draws.")] = 10,
    preset: Annotated[str, typer.Option(help="paper or quick.")] = "paper",
    backbone: Annotated[str | None, typer.Option(help="Feature network of the methods.")] = None,
    weights: Annotated[Path | None, typer.Option(help="File with the feature network's weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and order.")] = 0,
    data: Annotated[Path, typer.Option(help="Where prepared files lie.")] = Path("medfsad-data"),
    benchmark: Annotated[str | None, typer.Option(help="Which benchmark, if --data holds several.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs go, and finished ones are found.")] = Path("medfsad-runs"),
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the methods' config.")] = None,
    out_png: Annotated[Path, typer.Option("--out", help="PNG to write.")] = Path("robustness.png"),
    format_: Annotated[str, typer.Option("--format", help="table, md or json.")] = "table",
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what an unnoticed anomaly among the supports does: contaminated minus clean, on the same queries."""
    from medfsad_bench.board.robustness import as_json, means, measure, write_curves
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import RunOptions, cells
    from medfsad_bench.runner.runner import Runner

    style = "json" if json_ else one_of("--format", format_, ("table", "md", "json"))
    infos = [method_info(name) for name in method]
    options = RunOptions(
        runs, draws=draws, seed=seed, preset=preset, settings=settings_of(settings or [], backbone, weights)
    )
    sets, targets = prepared_targets(data, benchmark, target or ["all"])
    ks, spoilings = sorted(set(shots or [4])), sorted(set(contaminated or [1]))
    clean = [cell for one in targets for info in infos for cell in cells(info, [one], sets, ks, options)]
    plan = [(cell, replace(cell, options=replace(options, contaminated=m))) for cell in clean for m in spoilings]
    for _, spoilt in plan:
        if spoilt.absent:
            name = f"{spoilt.info.name} · {spoilt.target.name} · {spoilt.shots} shots"
            err.print(f"{name}: no such cell ({spoilt.absent})", style="dim")
    pairs = [pair for pair in plan if not pair[1].absent]
    if not pairs:
        raise StoreError(f"No contaminated cell exists: {'; '.join(sorted({spoilt.absent for _, spoilt in plan}))}.")
    runner = Runner(device)
    runner.announce(cell for cell, _ in pairs)
    with progress_bar() as progress:
        once = {cell.run_id: cell for pair in pairs for cell in pair}
        run_cells(runner, list(once.values()), Bars(progress))
    points = [measure(runs / cell.run_id, runs / spoilt.run_id) for cell, spoilt in pairs]
    points += means(points)
    write_curves(points, out_png)
    if style == "json":
        print_json(as_json(points))
    elif style == "md":
        out.file.write(_markdown(points))
    else:
        out.print(_curves_table(points))
        out.print(f"wrote {out_png}")


def influence(
    method: Annotated[str, typer.Argument(help="Name of a method.")],
    target: Annotated[str, typer.Option(help="Data set to test on.")],
    shots: Annotated[int, typer.Option(min=2, help="K, the number of support images.")] = 4,
    draw: Annotated[list[int] | None, typer.Option(min=0, max=9, help="Which draw; repeatable. 0 by default.")] = None,
    contaminated: Annotated[int, typer.Option(min=0, help="How many of the K are anomalies nobody noticed.")] = 0,
    preset: Annotated[str, typer.Option(help="paper or quick.")] = "paper",
    backbone: Annotated[str | None, typer.Option(help="Feature network of the method.")] = None,
    weights: Annotated[Path | None, typer.Option(help="File with the feature network's weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 0,
    data: Annotated[Path, typer.Option(help="Where prepared files lie.")] = Path("medfsad-data"),
    benchmark: Annotated[str | None, typer.Option(help="Which benchmark, if --data holds several.")] = None,
    runs: Annotated[Path, typer.Option(help="Where what was trained lies.")] = Path("medfsad-runs"),
    checkpoint: Annotated[Path | None, typer.Option(help="Weights to use instead of training.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the method's config.")] = None,
    out_png: Annotated[Path, typer.Option("--out", help="PNG to write.")] = Path("influence.png"),
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Leave each support out once: which image helps the method, and which one hurts it."""
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.influence import leave_one_out, write_influences
    from medfsad_bench.runner.plan import RunOptions, cells
    from medfsad_bench.runner.runner import Runner

    info = method_info(method)
    draws = sorted(set(draw or [0]))
    options = RunOptions(
        runs,
        draws=draws[-1] + 1,
        seed=seed,
        preset=preset,
        settings=settings_of(settings or [], backbone, weights),
        checkpoint=checkpoint,
        contaminated=contaminated,
    )
    if target == "all":
        raise MethodError("--target all is more than one picture can show. Name one data set.")
    sets, targets = prepared_targets(data, benchmark, [target])
    cell = cells(info, targets, sets, [shots], options)[0]
    if cell.absent:
        raise StoreError(f"There is no such cell: {cell.absent}. Choose other --shots, --draw or --contaminated.")
    runner = Runner(device)
    runner.announce([cell])
    with progress_bar() as progress:
        bars = Bars(progress)
        title = f"{info.name} · {cell.target.name} · {shots} shots"
        found = leave_one_out(cell, draws, runner.device, runner.cache, progress=bars.following(title))
        bars.finish()
    write_influences(cell, found, out_png)
    if json_:
        print_json([asdict(one) for one in found])
        return
    out.print(_influences_table(found, title))
    out.print(f"wrote {out_png}")


def _curves_table(points: "list[Point]") -> Table:
    table = Table(
        title="image AUROC, clean and contaminated, on the same queries", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for point in points:
        table.add_row(*_line(point))
    table.caption = "M of K supports are anomalies nobody noticed; below 0 they do harm. A clean row has more queries."
    return table


def _markdown(points: "list[Point]") -> str:
    lines = [f"| {' | '.join(_line(point))} |" for point in points]
    return "\n".join([f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}", *lines, ""])


_COLUMNS = ("method", "target", "M of K", "clean", "with M", "difference [95 %]")


def _line(point: "Point") -> list[str]:
    difference = point.difference
    return [
        point.method,
        point.target or "mean",
        point.case,
        f"{point.clean.value:.3f}",
        f"{point.spoilt.value:.3f}",
        f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]",
    ]


def _influences_table(found: "list[Influence]", title: str) -> Table:
    table = Table(title=f"{title}: AUROC with each support minus without it")
    for column in ("draw", "AUROC", "support", "influence [95 %]"):
        table.add_column(column, overflow="fold")
    before = -1
    for one in found:
        first = one.draw != before
        before = one.draw
        difference = one.difference
        table.add_row(
            str(one.draw) if first else "",
            f"{one.auroc:.3f}" if first else "",
            one.id + (" (an anomaly)" if one.anomalous else ""),
            f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]",
        )
    table.caption = "Above 0: it helps. Intervals are for other test images, with these supports."
    return table
