"""`medfsad curve`: what training is worth, epoch by epoch."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cache import feature_store
from medfsad_bench.cli.cells import failures_of, planned, stop_if_failed
from medfsad_bench.cli.console import err, folded, out, print_json, progress_bars, table_of

if TYPE_CHECKING:
    from medfsad_bench.runner.curves import Curve


def curve(
    method: opt.Method,
    every: Annotated[int, typer.Option(min=1, help="Epochs between two looks.")] = 5,
    shots: opt.Shots = 4,
    target: opt.Targets = None,
    draws: opt.Draws = None,
    hold_out: opt.HoldOut = "dataset",
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
    out_png: opt.Picture = Path("curve.png"),
    into: Annotated[
        Path | None, typer.Option(help="Page whose part `curve METHOD PRESET K seed [NAME=VALUE …]` is written anew.")
    ] = None,
    format_: opt.Shown = "table",
    json_: opt.Json = False,
) -> None:
    """Train, and show strict AUROC and losses after every few epochs, beside the untrained method and its controls.

    A broken curve goes on with the next epoch; its weights serve `medfsad run`.
    """
    from medfsad_bench.board.sections import fill, text_with_part
    from medfsad_bench.runner.curve_pages import as_markdown, auroc_lines, loss_lines, write_picture
    from medfsad_bench.runner.curves import training_curve
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.runner import Runner

    fixed = opt.settings_of(settings, backbone, weights)
    unusual: dict[str, Any] = {"draws": draws} if draws not in (None, opt.draws_of(None)) else {}
    unusual |= {"hold_out": hold_out} if hold_out != "dataset" else {}
    named = [f"{name}={value}" for name, value in (fixed | unusual).items()]
    part = " ".join(["curve", method, preset, str(shots), str(seed), *named])
    if into is not None:
        text_with_part(into, part)  # a page that can't take it is told before an hour of training
    options = RunOptions(runs, opt.draws_of(draws), seed, hold_out=hold_out, preset=preset, settings=fixed)
    plan = planned([method], target, [shots], options, data=data, benchmark=benchmark)
    runner, curves = Runner(device, store=feature_store(features, features_gb, runs, device)), []
    failures = failures_of(plan)
    with progress_bars() as bars:
        for number, cell in enumerate(plan, start=1):
            title = f"[{number}/{len(plan)}] {cell.title}"
            with failures.alone(cell.title):
                made = training_curve(cell, runner, every=every, progress=bars.following(title))
                bars.finish()
                first, last = made.auroc[min(made.auroc)].value, made.auroc[max(made.auroc)].value
                note = f"{title}: AUROC {first:.3f} untrained, {last:.3f} after epoch {max(made.auroc)}"
                err.print(note, markup=False)
                curves.append(made)
    if not curves:
        stop_if_failed([], failures.paragraphs)
    title = ", ".join([method, f"preset {preset}", f"{shots} shots", *named])
    write_picture(f"{title}, seed {seed}", curves, out_png)
    err.print(f"wrote {out_png}", markup=False)
    if into is not None and failures.paragraphs:
        err.print(f"{into} is left as it was: it would lack what failed.", markup=False)
    elif into is not None:
        picture = Path(os.path.relpath(out_png.resolve(), into.resolve().parent)).as_posix()
        fill(into, part, as_markdown(title, curves, picture))
        err.print(f"wrote {into}", markup=False)
    if json_ or format_ == "json":
        print_json([_as_json(made) for made in curves])
    elif format_ == "md":
        out.file.write(as_markdown(title, curves))
    else:
        for made in curves:
            columns, lines = auroc_lines([made])
            out.print(table_of(folded(*columns), lines, title=f"{title}: strict AUROC [95 %]", box=box.SIMPLE_HEAD))
            columns, lines = loss_lines([made])
            out.print(table_of(folded(*columns), lines, title="losses, mean over an epoch", box=box.SIMPLE_HEAD))
    stop_if_failed([], failures.paragraphs)


def _as_json(made: "Curve") -> dict[str, Any]:
    aurocs = {epoch: estimate.model_dump() for epoch, estimate in made.auroc.items()}
    controls = {name: estimate.model_dump() for name, estimate in made.controls.items()}
    return asdict(made) | {"auroc": aurocs, "controls": controls, "published_takes": made.picked}
