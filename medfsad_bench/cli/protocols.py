"""`medfsad protocols`: what each habit of the published protocol does to a method's AUROC."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from medfsad_bench.cli.cells import planned, title_of
from medfsad_bench.cli.console import Bars, interval_text, markdown_table, out, print_json, progress_bar
from medfsad_bench.cli.options import (
    DATA,
    RUNS,
    Backbone,
    Benchmark,
    Data,
    Device,
    Json,
    Method,
    Preset,
    Runs,
    Seed,
    Settings,
    Shots,
    Shown,
    Targets,
    Weights,
    settings_of,
)

if TYPE_CHECKING:
    from medfsad_bench.runner.protocols import Compared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(protocols)


def protocols(
    method: Method,
    shots: Shots = 4,
    target: Targets = None,
    draws: Annotated[int, typer.Option(min=2, max=10, help="Support draws of the strict lines.")] = 10,
    preset: Preset = "paper",
    backbone: Backbone = None,
    weights: Weights = None,
    device: Device = "auto",
    seed: Seed = 0,
    data: Data = DATA,
    benchmark: Benchmark = None,
    runs: Runs = RUNS,
    settings: Settings = None,
    format_: Shown = "table",
    json_: Json = False,
) -> None:
    """Show AUROC under the published protocol, under the strict one, and with each habit changed alone; needs maps."""
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.protocols import compare_protocols
    from medfsad_bench.runner.runner import Runner

    options = RunOptions(runs, draws=draws, seed=seed, preset=preset, settings=settings_of(settings, backbone, weights))
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
