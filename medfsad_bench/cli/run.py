"""`medfsad run` and `rescore`: from prepared sets to rows, and from stored scores to the same rows again."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cache import feature_store
from medfsad_bench.cli.cells import failures_of, planned, rows_table, run_cells, stop_if_failed
from medfsad_bench.cli.console import folded, out, print_json, table_of, unfolded
from medfsad_bench.cli.sweep import EngineOptions, run_sweep


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
    seed: opt.Seeds = None,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
    checkpoint: opt.Checkpoint = None,
    contaminated: opt.Contaminated = 0,
    save_maps: opt.SaveMaps = False,
    settings: opt.Settings = None,
    engine: opt.Engine = "local",
    jobs: opt.Jobs = None,
    address: opt.Address = None,
    cpus_per_task: opt.CpusPerTask = None,
    gpus_per_task: opt.GpusPerTask = None,
    memory_per_task: opt.MemoryPerTask = None,
    ship_data: opt.ShipData = False,
    retries: opt.Retries = 3,
    track: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard, mlflow or wandb: write what it shows, too, below --runs; offline; repeatable."),
    ] = None,
    json_: opt.Json = False,
) -> None:
    """Train (where a method trains), adapt to ten support draws, score every test image, write rows.

    Exit 1 if a row fails a protocol check, or one of several cells fails: the others go on.
    """
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.runner import Runner
    from medfsad_bench.runner.tracking import trackers

    by = EngineOptions(engine, jobs, address, cpus_per_task, gpus_per_task, memory_per_task, ship_data, retries)
    by.check()
    callback = trackers(track or [], runs)
    options = RunOptions(
        runs=runs,
        draws=opt.draws_of(draws, protocol),
        protocol=protocol,
        hold_out=hold_out,
        preset=preset,
        settings=opt.settings_of(settings, backbone, weights),
        checkpoint=checkpoint,
        save_maps=save_maps,
        contaminated=contaminated,
    )
    plan = planned(method, target, shots, options, data=data, benchmark=benchmark, seeds=seed or [0])
    store = feature_store(features, features_gb, runs, device)
    if by.in_this_process:
        failures = failures_of(plan)
        rows = run_cells(plan, Runner(device, store=store, callback=callback), failures)
        paragraphs = failures.paragraphs
    else:
        rows, paragraphs = run_sweep(plan, by, device, store, track or [])
    if json_:
        print_json([row.dump() for row in rows])
    elif rows:
        out.print(rows_table(rows))
    stop_if_failed(rows, paragraphs)


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
    for folder in map(RunFolder, folders):
        again = rescored(folder)
        differ = differences(folder.row(), again)
        parts = broken_down(folder, by, table) if by is not None else {}
        estimates = {**again.metrics, **again.secondary, **parts}
        results[folder.path.name] = {
            "equal": not differ,
            "differ": differ,
            "figures": {name: estimate.model_dump() for name, estimate in estimates.items()},
            "absent": again.absent,
        }
        if json_:
            continue
        verdict = f"differs in {', '.join(differ)}" if differ else "row and scores agree"
        out.print(f"{folder.path.name}: {verdict}", markup=False, soft_wrap=True)
        rows = [(name, estimate.text) for name, estimate in (parts or estimates).items()]
        rows += [] if parts else [(name, f"absent: {reason}") for name, reason in again.absent.items()]
        columns = (*unfolded("metric"), *folded("value [95 %]"))
        out.print(table_of(columns, rows, box=None, padding=(0, 1, 0, 0)))
    if json_:
        print_json(results)
    if not all(result["equal"] for result in results.values()):
        raise typer.Exit(1)
