"""`medfsad score`: a folder of new images against a few normal ones; no labels, no benchmark."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cache import feature_store
from medfsad_bench.cli.console import folded, out, print_json, printable, progress_bars, table_of, unfolded

if TYPE_CHECKING:
    from medfsad_bench.own_images.folder import Outcome

DEFAULT_METHOD = "multistage"  # `own_images.trained` says why
_SHOWN = 10


def score(
    method: opt.Method = DEFAULT_METHOD,
    support: Annotated[
        list[Path] | None, typer.Option(help="Normal images, or a folder or zip file of them; repeatable.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="New images, or a folder or zip file of them; repeatable.")
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="New folder for scores, maps and report.")] = Path("scores"),
    slices: Annotated[str, typer.Option(help="Of volumes: all, 'every N' or central.")] = "all",
    size: opt.Size = 256,
    intensity: opt.IntensityRule = None,
    crop: Annotated[Literal["none", "fundus"], typer.Option(help="fundus: cut to the field of view.")] = "none",
    level: Annotated[
        float, typer.Option(help="Share of new normals that may be flagged; few supports raise it.")
    ] = 0.05,
    sources: Annotated[
        Path | None, typer.Option(help="Folder of prepared sets whose normal images help to set the threshold.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Write each anomaly map as 16-bit PNG, too.")] = False,
    dicom_map: Annotated[
        Literal["capture", "parametric"] | None,
        typer.Option(
            help="Maps of DICOM images: capture (the usual) in colour, parametric as values.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with file and label, if there are labels: adds figures.")
    ] = None,
    with_ids: Annotated[
        bool, typer.Option("--with-ids", help="Name the patients of DICOM headers in table and report.")
    ] = False,
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    settings: opt.Settings = None,
    checkpoint: opt.Checkpoint = None,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    workers: opt.Workers = 1,
    json_: opt.Json = False,
) -> None:
    """Score new images against a few normal ones: no labels, no benchmark; research use, not a medical device.

    PNG, JPEG, TIFF, DICOM (single or multi-frame), NIfTI volumes slice by slice, zip files of these. Writes
    scores.csv, heat maps and report.html.
    """
    from medfsad_bench.errors import DownloadError
    from medfsad_bench.own_images.folder import ScoreOptions, score_folder
    from medfsad_bench.own_images.inputs import SliceChoice
    from medfsad_bench.own_images.reading import ReadingOptions
    from medfsad_bench.own_images.trained import MethodOptions

    for option, given in (("--support", support), ("--images", images)):
        if not given:
            raise DownloadError(
                f"{option} is not given. Expected normal images with --support and new ones with --images: files, "
                "folders or zip files."
            )
    with progress_bars() as bars:
        options = ScoreOptions(
            support or [],
            images or [],
            out_dir,
            MethodOptions(
                method,
                preset=preset,
                settings=opt.settings_of(settings, backbone, weights),
                device=device,
                seed=seed,
                checkpoint=checkpoint,
                data=data,
                benchmark=benchmark,
                runs=runs,
                store=feature_store(features, features_gb, runs, device),
                progress=bars.following(method),
            ),
            ReadingOptions(size, intensity, crop, workers),
            SliceChoice.of(slices),
            level=level,
            sources=sources,
            plain_maps=maps,
            dicom_map=dicom_map,
            labels=labels,
            with_ids=with_ids,
            command=shlex.join(["medfsad", *sys.argv[1:]]),
        )
        outcome = score_folder(options, bars)
    if json_:
        rows = outcome.table.astype(object).where(outcome.table.notna(), None)
        print_json(
            {
                "out": printable(out_dir),
                "settings": outcome.settings,
                "scores": rows.to_dict("records"),
                "left_out": [asdict(item) for item in outcome.left_out],
            }
        )
    else:
        _print(outcome, out_dir)


def _print(outcome: "Outcome", folder: Path) -> None:
    from pandas import isna as missing

    table, settings = outcome.table, outcome.settings
    for item in settings["unusable_supports"]:
        out.print(f"Support not used: {printable(item['name'])}: {printable(item['reason'])}", markup=False)
    for name, why in settings["suspects"].items():
        out.print(f"Support {printable(name)}: {printable(why)}.", style="yellow", markup=False)
    for note in settings["notes"]:
        out.print(f"Note: {printable(note)}", markup=False)
    ranked = table.sort_values("score", ascending=False, kind="stable").head(_SHOWN)
    parts = [name for name in ("slice", "frame") if name in table]
    cells = (
        (
            printable(row["file"]) + "".join(f" {name} {row[name]}" for name in parts if not missing(row[name])),
            f"{row['score']:.4g}",
            "flagged" if row["flagged"] else "not comparable" if row["not_comparable"] else "",
        )
        for row in ranked.to_dict("records")
    )
    out.print(f"Most anomalous first, {len(ranked)} of {len(table)}:")
    out.print(table_of([*folded("image"), *unfolded("score", "")], cells))
    strange = int((table["not_comparable"] != "").sum())
    left_out = settings["n_left_out"]
    out.print(
        f"{int(table['flagged'].sum())} of {len(table)} flagged"
        + (f", {strange} not comparable with the supports" if strange else "")
        + (f", left out {left_out} file{'s' * (left_out != 1)} or slices (the report says why)" if left_out else "")
        + ("; done before" if outcome.done_before else "")
        + "."
    )
    out.print(settings["promise"], markup=False)
    for name, value in settings["figures"].items():
        out.print(f"{name}: {value}", markup=False)
    out.print("Research use, not a medical device.")
    out.print(f"Written to {printable(folder)}: report.html, scores.csv and .parquet, settings.json", markup=False)
