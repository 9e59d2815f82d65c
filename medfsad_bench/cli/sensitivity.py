"""`medfsad robustness`, `influence`, `protocols`: how much AUROC depends on the supports and on the protocol."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cache import feature_store
from medfsad_bench.cli.cells import existing, failures_of, planned, run_cells, stop_if_failed
from medfsad_bench.cli.console import (
    folded,
    out,
    print_json,
    progress_bars,
    table_of,
)
from medfsad_bench.display import markdown_table
from medfsad_bench.errors import MethodError

if TYPE_CHECKING:
    from medfsad_bench.runner.influence import Influence


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
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
    settings: opt.Settings = None,
    out_png: opt.Picture = Path("robustness.png"),
    format_: opt.Shown = "table",
    json_: opt.Json = False,
) -> None:
    """Show what an unnoticed anomaly among the supports does: contaminated minus clean, on the same queries."""
    from medfsad_bench.board.robustness import as_json, means, measure, table_of_points, write_picture
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.runner import Runner

    options = RunOptions(
        runs, draws=opt.draws_of(draws), seed=seed, preset=preset, settings=opt.settings_of(settings, backbone, weights)
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
    failures = failures_of(list(by_id.values()))
    runner = Runner(device, store=feature_store(features, features_gb, runs, device))
    made = run_cells(list(by_id.values()), runner, failures)
    finished = {row.run_id for row in made}
    whole_pairs = [pair for pair in pairs if finished.issuperset(cell.run_id for cell in pair)]
    if not whole_pairs:
        stop_if_failed(made, failures.paragraphs)
    points = [measure(*(runs / cell.run_id for cell in pair)) for pair in whole_pairs]
    points += [] if failures.paragraphs else means(points)  # of fewer targets it would be another figure
    write_picture(points, out_png)
    columns, rows = table_of_points(points)
    if json_ or format_ == "json":
        print_json(as_json(points))
    elif format_ == "md":
        out.file.write(markdown_table(columns, rows))
    else:
        title = "image AUROC, clean and contaminated, on the same queries"
        table = table_of(folded(*columns), rows, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.caption = (
            "M of K supports are anomalies nobody noticed; below 0 they do harm. A clean row has more queries."
        )
        out.print(table)
        out.print(f"wrote {out_png}")
    stop_if_failed(made, failures.paragraphs)


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
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
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
    runner = Runner(device, store=feature_store(features, features_gb, runs, device))
    runner.announce([cell])
    with progress_bars() as bars:
        influences = leave_one_out(cell, draws, runner.device, runner.cache, progress=bars.following(cell.title))
    write_influences(cell, influences, out_png)
    if json_:
        print_json([asdict(support) | {"difference": support.difference.figures()} for support in influences])
        return
    out.print(_influences_table(influences, cell.title))
    out.print(f"wrote {out_png}")


def protocols(
    method: opt.Method,
    shots: opt.Shots = 4,
    target: opt.Targets = None,
    draws: Annotated[int, typer.Option(min=2, max=10, help="Support draws of the strict lines.")] = 10,
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
    settings: opt.Settings = None,
    format_: opt.Shown = "table",
    json_: opt.Json = False,
) -> None:
    """Show AUROC under the published protocol, under the strict one, and with each habit changed alone; needs maps."""
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.protocols import compare_protocols
    from medfsad_bench.runner.runner import Runner

    options = RunOptions(
        runs, draws=draws, seed=seed, preset=preset, settings=opt.settings_of(settings, backbone, weights)
    )
    plan = planned([method], target, [shots], options, data=data, benchmark=benchmark)
    runner = Runner(device, store=feature_store(features, features_gb, runs, device))
    failures, results = failures_of(plan), []
    with progress_bars() as bars:
        for cell in plan:
            with failures.alone(cell.title):
                shown = bars.following(cell.title)
                results.append(compare_protocols(cell, runner.device, runner.cache, progress=shown))
    if not results:
        stop_if_failed([], failures.paragraphs)
    columns = ["protocol", *(result.target for result in results)]
    rows = [[name, *(result.figures[name].text for result in results)] for name in results[0].figures]
    if json_ or format_ == "json":
        print_json(
            [
                asdict(result) | {"figures": {name: auroc.model_dump() for name, auroc in result.figures.items()}}
                for result in results
            ]
        )
    elif format_ == "md":
        out.file.write(markdown_table(columns, rows))
    else:
        out.print(table_of(columns, rows, title="image AUROC [95 % interval]"))
    stop_if_failed([], failures.paragraphs)


def _influences_table(influences: "Sequence[Influence]", title: str) -> Table:
    rows = []
    for number, support in enumerate(influences):
        first_of_draw = number == 0 or support.draw != influences[number - 1].draw
        rows.append(
            (
                *((str(support.draw), f"{support.auroc:.3f}") if first_of_draw else ("", "")),
                support.id + (" (an anomaly)" if support.anomalous else ""),
                support.difference.text,
            )
        )
    caption = "Above 0: it helps. Intervals are for other test images, with these supports."
    title = f"{title}: AUROC with each support minus without it"
    return table_of(folded("draw", "AUROC", "support", "influence [95 %]"), rows, title=title, caption=caption)
