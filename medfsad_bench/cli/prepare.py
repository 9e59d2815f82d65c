"""`medfsad prepare`, `verify`, `inspect`, `export`: everything about prepared files."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from medfsad_bench.cli.console import Bars, out, print_json, progress_bar
from medfsad_bench.errors import ManifestError, MedfsadError, SourceError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(prepare)
    app.command()(verify)
    app.command()(inspect)
    app.command()(export)


def prepare(
    source: Annotated[Path, typer.Option(help="Folder of one raw download, or one that holds several.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only this data set; may be repeated.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Where prepared files go.")] = Path("medfsad-data"),
    size: Annotated[int, typer.Option(min=32, max=2048, help="Edge of the stored square images, px.")] = 256,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read images.")] = 1,
    benchmark: Annotated[str, typer.Option(help="Which composition.")] = "medfsad-13k",
    allow: Annotated[
        list[str] | None, typer.Option(help="Fault to let through (smaller, near-duplicates, other-files); repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Prepare raw downloads: recognise, curate, split, and write versioned HDF5."""
    from medfsad_bench.manifest import benchmark_names
    from medfsad_bench.prepare import FAULTS, PrepareOptions
    from medfsad_bench.prepare import prepare as prepare_source

    if benchmark not in (*benchmark_names(), "demo"):
        raise ManifestError(f"Benchmark {benchmark!r} is unknown; there are {', '.join(benchmark_names())}.")
    if unknown := sorted(set(allow or []) - set(FAULTS)):
        raise SourceError(f"--allow {unknown[0]!r} names no known fault; there are {', '.join(FAULTS)}.")
    options = PrepareOptions(out_dir, benchmark, size, workers, frozenset(allow or []), dry_run)
    with progress_bar() as progress:
        bars = Bars(progress)
        reports, left = prepare_source(source, options, datasets=dataset or [], watcher=bars)
        bars.finish()
    if json_:
        print_json({"sets": [asdict(report) for report in reports], "left_alone": [folder.name for folder in left]})
        return
    table = Table(title=f"{benchmark}{' (dry run)' if dry_run else ''}")
    for column in ("set", "train", "normal", "anomalous", "groups", "bad", "notes"):
        table.add_column(column, justify="left" if column in ("set", "notes") else "right", no_wrap=column != "notes")
    for report in reports:
        counts = [f"{report.counts.get(key, 0):,}" for key in ("train normal", "test normal", "test anomalous")]
        groups = f"{report.groups.get('train', 0)}/{report.groups.get('test', 0)}"
        notes = ", ".join(report.allowed) or ("" if not report.findings else f"{len(report.findings)} finding(s)")
        table.add_row(report.name, *counts, groups, str(len(report.quarantined)), notes)
    table.caption = "train: normal images; normal, anomalous: of the test; groups: train/test; bad: quarantined"
    out.print(table)
    if not dry_run:
        folders = sorted({str(Path(report.path).parent) for report in reports})
        out.print(f"Files, reports and contact sheets are in {', '.join(folders)}.")
    for report in reports:
        if "smaller" in report.allowed and benchmark != "demo":
            out.print(
                f"{report.name}: smaller than the benchmark asks for; file and rows say that it isn't {benchmark}."
            )
        if report.licensed and report.benchmark not in ("demo", "own"):
            out.print(f"{report.name}: the licence of the images doesn't allow you to pass the prepared file on.")
        if report.benchmark == "own":
            out.print(
                f"{report.name}: your own folder, no benchmark; `medfsad run METHOD --target {report.name}` uses it."
            )
    for folder in left:
        out.print(f"left alone: {folder.name} (no known layout)", style="dim")


def verify(
    files: Annotated[list[Path], typer.Argument(help="Prepared files.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prove a prepared file: digests, schema, disjoint groups, episodes. Exit 1 if a check fails."""
    from medfsad_bench.store import verify_store

    found = {str(path): verify_store(path) for path in files}
    if json_:
        print_json(found)
    else:
        for path, faults in found.items():
            out.print(f"{Path(path).name}: " + ("; ".join(faults) if faults else "sound"))
    if any(found.values()):
        raise typer.Exit(1)


def inspect(
    file: Annotated[Path, typer.Argument(help="A prepared file.")],
    out_png: Annotated[Path | None, typer.Option("--out", help="Write a contact sheet (PNG) here.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a prepared file holds."""
    from medfsad_bench.sheet import write_contact_sheet
    from medfsad_bench.store import Dataset

    dataset = Dataset(file)
    table = dataset.table
    counts = table.groupby(["split", "label"]).agg(images=("id", "size"), groups=("group", "nunique"))
    known = {key: value for key, value in dataset.attributes.items() if key != "manifest"}
    known |= {
        "counts": {
            f"{row['split']} {'anomalous' if row['label'] else 'normal'}": [int(row["images"]), int(row["groups"])]
            for row in counts.reset_index().to_dict("records")
        }
    }
    known["draws"] = [len(draw) for draw in dataset.episodes]
    if out_png is not None:
        write_contact_sheet(dataset, out_png)
    if json_:
        print_json(known)
        return
    grid = Table(title=file.name, show_header=False)
    for key, value in known.items():
        grid.add_row(key, str(value))
    out.print(grid)


def export(
    file: Annotated[Path, typer.Argument(help="A prepared file.")],
    out_path: Annotated[Path, typer.Option("--out", help="File (csv, ids, episodes) or new folder (png) to write.")],
    to: Annotated[
        str, typer.Option(help="csv: the table; ids: a manifest's id list; episodes: what to score; png.")
    ] = "csv",
) -> None:
    """Write a prepared file's table, membership or images for other tools."""
    from medfsad_bench.export import export_episodes, export_ids, export_png, export_table
    from medfsad_bench.store import Dataset

    dataset = Dataset(file)
    if to == "csv":
        out.print(f"wrote {export_table(dataset, out_path):,} rows to {out_path}")
    elif to == "ids":
        out.print(f'ids_sha256 = "{export_ids(dataset, out_path, with_sha256=True)}"')
    elif to == "episodes":
        out.print(f"wrote {export_episodes(dataset, out_path):,} supports and queries to {out_path}")
    elif to == "png":
        out.print(f"wrote {export_png(dataset, out_path):,} images to {out_path}")
    else:
        raise MedfsadError(f"--to {to!r} is unknown; there are csv, ids, episodes and png.")
