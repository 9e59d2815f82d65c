"""`medfsad prepare`, `verify`, `inspect`, `export`: make, test, look at and pass on prepared files."""

import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.markup import escape

from medfsad_bench.cli.console import folded, out, print_json, printable, progress_bars, table_of, unfolded
from medfsad_bench.cli.options import DATA, Address, Engine, IntensityRule, Json, Size, Workers, drawable
from medfsad_bench.cli.reports import composition_table, print_reports
from medfsad_bench.cluster import joined, require_on_all_nodes
from medfsad_bench.errors import DownloadError, ManifestError

if TYPE_CHECKING:
    from medfsad_bench.curation.report import SetReport
    from medfsad_bench.layouts.own_arguments import OwnImages


def prepare(
    source: Annotated[
        Path | None, typer.Option(help="Folder or zip file of a download, or a folder of several at any depth.")
    ] = None,
    normal: Annotated[Path | None, typer.Option(help="Folder of your own normal images.")] = None,
    anomalous: Annotated[Path | None, typer.Option(help="Folder of your own anomalous images.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks of these, under the same names.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="path=NAME, label=NAME, patient=NAME or mask=NAME: a column of your table; repeatable."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="normal=WORD,… or anomalous=WORD,…: labels of your table; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call your own set.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this data set; may be repeated.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of prepared files.")] = DATA,
    size: Size = 256,
    workers: Workers = 1,
    benchmark: Annotated[str, typer.Option(help="Which composition.")] = "medfsad-13k",
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Fault to let through, by the name that the message gives it; repeatable."),
    ] = None,
    intensity: IntensityRule = None,
    engine: Engine = "local",
    address: Address = None,
    scan: Annotated[bool, typer.Option("--scan", help="Only say what lies there and what is missing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as --scan.")] = False,
    json_: Json = False,
) -> None:
    """Prepare downloads: recognise them, select and check their images, split, and write versioned HDF5.

    Exit 1 if one of several sets can't be prepared, or, with --scan, if a --dataset isn't there.
    """
    from medfsad_bench.curation.stage import FAULTS, OwnImages, PrepareOptions, SetsFailedError
    from medfsad_bench.curation.stage import prepare as prepare_downloads
    from medfsad_bench.manifest import benchmark_names

    if benchmark not in (*benchmark_names(), "demo"):
        raise ManifestError(f"Benchmark {benchmark!r} is unknown; there are {', '.join(benchmark_names())}.")
    if unknown := sorted(set(allow or []) - set(FAULTS)):
        raise DownloadError(f"--allow {unknown[0]!r} names no known fault; there are {', '.join(FAULTS)}.")
    own = OwnImages(normal, anomalous, masks, column or [], label or [])
    if scan or dry_run:
        _scan(source, benchmark, own, name, dataset or [], json_=json_)
        return
    if engine == "local" and address is not None:
        raise DownloadError("--address goes with --engine ray, and the engine is local. Give both, or leave it out.")
    allowed, on_cluster = frozenset(allow or []), engine == "ray"
    options = PrepareOptions(out_dir, benchmark, size, workers, allowed, intensity=intensity, on_cluster=on_cluster)
    reasons: list[str] = []
    try:
        with joined(address) if on_cluster else nullcontext(), progress_bars() as bars:
            if on_cluster:
                require_on_all_nodes(list(filter(None, (source, normal, anomalous, masks, _existing_part(out_dir)))))
            reports, left = prepare_downloads(source, options, datasets=dataset or [], watcher=bars, own=own, name=name)
    except SetsFailedError as failed:
        reports, left, reasons = failed.reports, failed.left_alone, failed.reasons
    if json_:
        left_alone = [
            {"name": item.name, "path": printable(item.path), "kind": item.kind, "reason": printable(item.reason)}
            for item in left
        ]
        print_json({"sets": [asdict(report) for report in reports], "left_alone": left_alone, "failed": reasons})
    else:
        print_reports(reports, benchmark)
        for item in left:
            out.print(f"left alone: {printable(item.path)} ({printable(item.reason)})", style="dim", markup=False)
        _print_what_is_told(own)
        if not dataset:
            _print_absent(reports, benchmark)
        for reason in reasons:
            out.print(f"not prepared: {printable(reason)}", markup=False)
    if reasons:
        raise typer.Exit(1 if reports else 2)


def verify(files: Annotated[list[Path], typer.Argument(help="Prepared files.")], json_: Json = False) -> None:
    """Prove a prepared file: digests, schema, disjoint groups, episodes. Exit 1 if a check fails."""
    from medfsad_bench.manifest import version_note
    from medfsad_bench.store import Dataset, verify_store

    faults_of = {str(path): verify_store(path) for path in files}
    if json_:
        print_json(faults_of)
    else:
        for path, faults in faults_of.items():
            said = f"{'; '.join(faults)}. Remove it and prepare the set again." if faults else "sound"
            out.print(f"{Path(path).name}: {said}", markup=False)
            if not faults and (note := version_note(Dataset(Path(path)).attributes)):
                out.print(f"  {note}", markup=False)
    if any(faults_of.values()):
        raise typer.Exit(1)


def inspect(
    file: Annotated[Path, typer.Argument(help="A prepared file.")],
    out_png: Annotated[
        Path | None, typer.Option("--out", help="Write a contact sheet (PNG) here.", callback=drawable)
    ] = None,
    json_: Json = False,
) -> None:
    """Show what a prepared file holds."""
    from medfsad_bench.manifest import version_note
    from medfsad_bench.store import Dataset
    from medfsad_bench.store.composition import SMALL, is_small, table_compositions
    from medfsad_bench.store.sheet import write_contact_sheet

    dataset = Dataset(file)
    made_of = table_compositions(dataset.table)
    facts = {key: value for key, value in dataset.attributes.items() if key != "manifest"}
    facts["counts"] = {key: [of_class.images, of_class.groups] for key, of_class in made_of.items()}
    if is_small(made_of):
        facts["small"] = SMALL.removeprefix("small: ")
    if note := version_note(dataset.attributes):
        facts["note"] = note
    facts["draws"] = [len(draw) for draw in dataset.episodes]
    if out_png is not None:
        write_contact_sheet(dataset, out_png)
    if json_:
        print_json(facts | {"composition": {key: asdict(of_class) for key, of_class in made_of.items()}})
    else:
        rows = ((key, str(value)) for key, value in facts.items())
        grid = table_of(("", ""), rows, title=file.name, show_header=False)
        out.print(grid, composition_table({dataset.name: made_of}))


def export(
    file: Annotated[Path, typer.Argument(help="A prepared file.")],
    out_path: Annotated[Path, typer.Option("--out", help="File (csv, ids, episodes) or new folder (png, croissant).")],
    to: Annotated[
        Literal["csv", "ids", "episodes", "png", "croissant"],
        typer.Option(
            help="csv: the table; ids: an id list; episodes: what to score; png: images; croissant: these, described."
        ),
    ] = "csv",
) -> None:
    """Write a prepared file's table, membership or images for other tools."""
    from medfsad_bench.store import Dataset
    from medfsad_bench.store.export import export_croissant, export_episodes, export_ids, export_png, export_table

    dataset = Dataset(file)
    match to:
        case "ids":
            out.print(f'ids_sha256 = "{export_ids(dataset, out_path)}"')
            return
        case "csv":
            count, what = export_table(dataset, out_path), "rows"
        case "episodes":
            count, what = export_episodes(dataset, out_path), "supports and queries"
        case "png":
            count, what = export_png(dataset, out_path), "images"
        case "croissant":
            count, what = export_croissant(dataset, out_path), "images, images.csv and croissant.json"
    out.print(f"wrote {count:,} {what} to {out_path}")


def _scan(
    source: Path | None,
    benchmark: str,
    own: "OwnImages",
    name: str | None,
    datasets: Sequence[str],
    *,
    json_: bool,
) -> None:
    from medfsad_bench.curation.scan import scan
    from medfsad_bench.manifest import all_manifests

    seen = scan(source, benchmark, own=own, name=name)
    lacking = seen.lacks(datasets)
    manifests = all_manifests()
    if json_:
        steps = [
            {"name": m.name, "url": m.url, "obtain": m.obtain.strip()} for m in map(manifests.get, seen.absent) if m
        ]
        sights = [{key: printable(value) for key, value in asdict(sight).items()} for sight in seen.sights]
        print_json({"benchmark": benchmark, "sights": sights, "absent": steps, "lacking": lacking})
    else:
        columns = (*unfolded("", "set"), *folded("where", "what"))
        rows = ((sight.status, sight.name, _below(sight.path, source), sight.detail) for sight in seen.sights)
        cells = (tuple(escape(printable(cell)) for cell in row) for row in rows)
        title = escape(printable(f"{source or 'own images'}, for {benchmark}"))
        out.print(table_of(columns, cells, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)))
        for absent in seen.absent:
            out.print(f"{absent} is nowhere here. How to get it ({manifests[absent].url}):", markup=False)
            out.print(textwrap.indent(manifests[absent].obtain.strip(), "  "), markup=False)
        if lacking:
            out.print(f"Asked for and not there, or not whole: {', '.join(lacking)}.", markup=False)
    if lacking:
        raise typer.Exit(1)


def _print_absent(reports: "Sequence[SetReport]", benchmark: str) -> None:
    """Which sets of the benchmark weren't there, if any of them was."""
    from medfsad_bench.manifest import all_manifests

    there = {report.name for report in reports if report.benchmark == benchmark}
    absent = [m.name for m in all_manifests().values() if benchmark in m.benchmarks and m.name not in there]
    if there and absent:
        out.print(
            f"Of {benchmark} not prepared here: {', '.join(absent)}; `medfsad prepare --scan` says what is missing and "
            "how to get it."
        )


def _print_what_is_told(own: "OwnImages") -> None:
    """What --label leaves to be understood."""
    classes = {label.partition("=")[0].strip() for label in own.labels}
    if len(classes) == 1:
        other = "anomalous" if classes == {"normal"} else "normal"
        words = ", ".join(label.partition("=")[2].strip() for label in own.labels)
        out.print(f"Labels: all but {words} are {other}.", markup=False)


def _below(path: str, source: Path | None) -> str:
    """A path as seen from the folder that was looked through."""
    if source is None or not Path(path).is_relative_to(source) or Path(path) == source:
        return path
    return str(Path(path).relative_to(source))


def _existing_part(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
