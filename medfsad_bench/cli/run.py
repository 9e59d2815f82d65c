"""`medfsad run` and `rescore`: from prepared sets to rows, and from stored scores to the same rows again."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cells import planned, rows_table, run_cells
from medfsad_bench.cli.console import interval_text, out, print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(rescore)


def run(
    method: opt.Methods,
    shots: opt.ShotsList = None,
    target: opt.Targets = None,
    draws: opt.Draws = None,
    protocol: opt.Protocol = "strict",
    hold_out: opt.HoldOut = "dataset",
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    checkpoint: opt.Checkpoint = None,
    contaminated: opt.Contaminated = 0,
    save_maps: Annotated[bool, typer.Option("--save-maps", help="Keep the smoothed anomaly maps.")] = False,
    settings: opt.Settings = None,
    json_: opt.Json = False,
) -> None:
    """Train (where a method trains), adapt to ten support draws, score every test image, write rows."""
    from medfsad_bench.runner.plan import RunOptions

    options = RunOptions(
        runs=runs,
        draws=opt.draws_of(draws, protocol),
        seed=seed,
        protocol=protocol,
        hold_out=hold_out,
        preset=preset,
        settings=opt.settings_of(settings, backbone, weights),
        checkpoint=checkpoint,
        save_maps=save_maps,
        contaminated=contaminated,
    )
    rows = run_cells(planned(method, target, shots, options, data=data, benchmark=benchmark), device)
    if json_:
        print_json([row.dump() for row in rows])
    else:
        out.print(rows_table(rows))


def rescore(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    by: Annotated[str | None, typer.Option(help="Break AUROC down by this column too: a site, a scanner.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV with `id` and that column, if the scores lack it.")] = None,
    json_: opt.Json = False,
) -> None:
    """Recompute the estimates of runs from their stored scores and pixel histograms. Exit 1 if a row differs."""
    from medfsad_bench.results.rescore import broken_down, differences, rescored
    from medfsad_bench.results.run_folder import RunFolder

    results: dict[str, dict[str, Any]] = {}
    tables: dict[str, Table] = {}
    for folder in map(RunFolder, folders):
        again = rescored(folder)
        differ = differences(folder.row(), again)
        parts = broken_down(folder, by, table) if by is not None else {}
        estimates = {**again.metrics, **again.secondary, **parts}
        results[folder.path.name] = {
            "equal": not differ,
            "differ": differ,
            "figures": {name: estimate.model_dump() for name, estimate in estimates.items()},
        }
        if by is not None:
            tables[folder.path.name] = _breakdown({name: part for name, part in estimates.items() if f"[{by} " in name})
    if json_:
        print_json(results)
    else:
        for name, result in results.items():
            verdict = "row and scores agree" if result["equal"] else f"differs in {', '.join(result['differ'])}"
            out.print(f"{name}: {verdict}")
            if name in tables:
                out.print(tables[name])
    if not all(result["equal"] for result in results.values()):
        raise typer.Exit(1)


def _breakdown(estimates: dict[str, Any]) -> Table:
    table = Table()
    for column in ("metric", "value [95 %]"):
        table.add_column(column, overflow="fold")
    for name, estimate in estimates.items():
        table.add_row(name.replace("[", r"\["), interval_text(estimate))
    return table
