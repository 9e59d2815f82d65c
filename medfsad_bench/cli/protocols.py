"""`medfsad protocols`: what each habit of the published protocol does to a method's AUROC."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cells import planned, title_of
from medfsad_bench.cli.console import Bars, interval_text, markdown_table, out, print_json, progress_bar

if TYPE_CHECKING:
    from medfsad_bench.runner.protocols import Compared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(protocols)


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
    runner = Runner(device)
    results = []
    with progress_bar() as progress:
        bars = Bars(progress)
        for cell in plan:
            following = bars.following(title_of(cell))
            results.append(compare_protocols(cell, runner.device, runner.cache, progress=following))
            bars.finish()
    if json_ or format_ == "json":
        print_json([_plain(result) for result in results])
        return
    columns = ["protocol", *(result.target for result in results)]
    if format_ == "md":
        out.file.write(markdown_table(columns, _lines(results)))
        return
    table = Table(*columns, title="image AUROC [95 % interval]")
    for line in _lines(results):
        table.add_row(*line)
    out.print(table)


def _lines(results: "Sequence[Compared]") -> list[list[str]]:
    return [[name, *(interval_text(result.figures[name]) for result in results)] for name in results[0].figures]


def _plain(result: "Compared") -> dict[str, Any]:
    return asdict(result) | {"figures": {name: auroc.model_dump() for name, auroc in result.figures.items()}}
