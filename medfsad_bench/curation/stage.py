"""`medfsad prepare`: from raw downloads to prepared files.

    recognise layouts → which sets of the benchmark they hold → unpack → prepare one set after the other

A bad image is a line in the report; a bad set stops, unless `--allow` names the fault, and then the file says so. The
other sets go on.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from medfsad_bench.curation.one_set import prepare_set
from medfsad_bench.curation.options import FAULTS, PrepareOptions, Watcher
from medfsad_bench.curation.out_folder import sole_writer
from medfsad_bench.curation.own_manifest import plain_manifest
from medfsad_bench.curation.own_sets import check_own, own_names, refuse_other_origin
from medfsad_bench.curation.report import SetReport
from medfsad_bench.curation.shared import PrintsByFile
from medfsad_bench.errors import CurationError, DownloadError, MedfsadError, nearest
from medfsad_bench.files import write_advice
from medfsad_bench.layouts import Download, LeftAlone, recognise
from medfsad_bench.layouts.class_folders import OWN_FORMS
from medfsad_bench.layouts.incomplete import hint
from medfsad_bench.layouts.own_arguments import OwnImages, own_download
from medfsad_bench.manifest import Manifest, all_manifests

__all__ = ["FAULTS", "OwnImages", "PrepareOptions", "SetReport", "SetsFailedError", "prepare"]


class SetsFailedError(CurationError):
    """Some sets can't be prepared; the others were.

    Attributes:
        reports: Of the sets that were prepared.
        left_alone: What wasn't taken.
        reasons: Why a set, or what was asked for, isn't there; one paragraph each.
    """

    def __init__(self, reports: list[SetReport], left_alone: list[LeftAlone], reasons: list[str]) -> None:
        super().__init__(" ".join(reasons))
        self.reports, self.left_alone, self.reasons = reports, left_alone, reasons


def prepare(
    folder: Path | None,
    options: PrepareOptions,
    *,
    datasets: Sequence[str] = (),
    watcher: Watcher,
    own: OwnImages | None = None,
    name: str | None = None,
) -> tuple[list[SetReport], list[LeftAlone]]:
    """Prepare every set that lies in `folder` and belongs to the benchmark.

    Args:
        folder: Of one raw download or of several at any depth, packed or not; a zip file itself. None if `own` says
            where the images lie.
        options: Where to, which benchmark, how large.
        datasets: Names to restrict to; empty takes all.
        watcher: Shows progress.
        own: A user's own images told by arguments.
        name: What to call the own set.

    Returns:
        A report per set, and what wasn't taken.

    Raises:
        DownloadError: If nothing in `folder` is recognised, or not what was asked for.
        CurationError: If the one set there isn't what its manifest promises, or `options.out` can't be written.
        ManifestError: If a benchmark takes a split that the download doesn't hold.
        SetsFailedError: If that is so of one set among several; the others are prepared.
    """
    downloads, left_alone = downloads_of(folder, own)
    names = names_of(downloads, name)
    sets = [
        (download, [m for m in _manifests(download, names[number], options.benchmark) if _asked(m.name, datasets)])
        for number, download in enumerate(downloads)
    ]
    sets = _each_once(sets, left_alone)
    prepared_names = {manifest.name for _, manifests in sets for manifest in manifests}
    failures: list[MedfsadError] = []
    if absent := sorted(set(datasets) - prepared_names):
        own_ones = [names[number] for number, download in enumerate(downloads) if download.is_own]
        failures.append(DownloadError(_absent(folder, absent, own_ones, downloads, left_alone, options.benchmark)))
    if not prepared_names:
        raise failures[0] if failures else DownloadError(_nothing(folder, downloads, left_alone, options.benchmark))
    if not options.dry_run:
        _check_writable(options.out)
    with nullcontext() if options.dry_run else sole_writer(options.out, folder or downloads[0].origin, watcher):
        reports = _each(sets, options, watcher, left_alone, failures)
    if len(failures) == 1 and not reports:
        raise failures[0]
    if failures:
        raise SetsFailedError(reports, left_alone, [str(error) for error in failures])
    return reports, left_alone


def _each(
    sets: Sequence[tuple[Download, list[Manifest]]],
    options: PrepareOptions,
    watcher: Watcher,
    left_alone: list[LeftAlone],
    failures: list[MedfsadError],
) -> list[SetReport]:
    """Prepare one set after the other; why one can't be is added to `failures`."""
    reports: list[SetReport] = []
    prints_by_file: PrintsByFile = {}
    for download, manifests in sets:
        if not manifests:
            continue
        if options.dry_run and download.packed:
            left_alone.append(LeftAlone(download.origin, f"{download.layout}, packed: a dry run doesn't unpack it"))
            continue
        staging = Path(options.out, ".staging", "unpacked")
        try:
            unpacked = download.unpacked(staging, watcher.start, watcher.advance)
        except MedfsadError as error:
            failures.append(error)
            continue
        for manifest in manifests:
            try:
                reports.append(_one(unpacked, manifest, options, watcher, prints_by_file))
            except MedfsadError as error:
                failures.append(error)
        if download.packed:
            shutil.rmtree(staging, ignore_errors=True)
    return reports


def downloads_of(folder: Path | None, own: OwnImages | None) -> tuple[list[Download], list[LeftAlone]]:
    """What lies in a folder, or what the arguments for own images describe.

    Raises:
        DownloadError: If they don't, or `folder` is none.
    """
    if own is not None and own.given:
        return [own_download(own, folder)], []
    if folder is None:
        raise DownloadError(f"--source is not given. Expected the folder of a download, or own images. {OWN_FORMS}")
    return recognise(folder)


def names_of(downloads: Sequence[Download], name: str | None) -> dict[int, str]:
    """Names of the own ones among several downloads, by their place in the list.

    Raises:
        DownloadError: If `name` isn't fit for the one there should be.
    """
    numbers = [number for number, download in enumerate(downloads) if download.is_own]
    own = [downloads[number] for number in numbers]
    return dict.fromkeys(range(len(downloads)), "") | dict(zip(numbers, own_names(own, name), strict=True))


def benchmark_manifests(layout: str, benchmark: str) -> list[Manifest]:
    """The sets of a benchmark that are made from a layout; phantoms stand for those of two benchmarks."""
    manifests = all_manifests().values()
    if benchmark == "demo":
        parts = {"medfsad-13k", "medfsad-pixel"}
        return [m for m in manifests if layout == m.layout and parts & set(m.benchmarks)]
    splits = ((manifest, manifest.benchmarks.get(benchmark)) for manifest in manifests)
    return [m for m, split in splits if split and layout in (m.layout, *split.also_from)]


def _manifests(download: Download, name: str, benchmark: str) -> list[Manifest]:
    if download.is_own:
        return [plain_manifest(download.root, download.images, name=name)]
    return benchmark_manifests(download.layout, benchmark)


def _each_once(
    sets: Sequence[tuple[Download, list[Manifest]]], left_alone: list[LeftAlone]
) -> list[tuple[Download, list[Manifest]]]:
    """Every set from one download: of several layouts that hold it, from the one with most images."""
    taken: dict[str, Download] = {}
    for download, manifests in sorted(sets, key=lambda item: -len(item[0].images)):
        for manifest in manifests:
            other = taken.setdefault(manifest.name, download)
            if other is not download:
                reason = f"{manifest.name} again; taken is {other.origin}"
                left_alone.append(LeftAlone(download.origin, reason, "copy", download.layout))
    return [(download, [m for m in manifests if taken[m.name] is download]) for download, manifests in sets]


def _asked(name: str, datasets: Sequence[str]) -> bool:
    return not datasets or name in datasets


def _one(
    download: Download, manifest: Manifest, options: PrepareOptions, watcher: Watcher, prints_by_file: PrintsByFile
) -> SetReport:
    if download.is_own:
        manifest = plain_manifest(download.root, download.images, name=manifest.name)  # what is there is known only now
        check_own(manifest.name, download.images)
        refuse_other_origin(manifest.name, download, options.out)
    return prepare_set(download, manifest, options, watcher, prints_by_file)


def _check_writable(out: Path) -> None:
    """Say at once, not after all images were read, that nothing can be written.

    Raises:
        CurationError: If so.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CurationError(
            f"--out {out}: can't be written ({error.strerror or error}). {write_advice(error)} Nothing was prepared."
        ) from error


def _absent(
    folder: Path | None,
    absent: Sequence[str],
    own: Sequence[str],
    downloads: Sequence[Download],
    left_alone: Sequence[LeftAlone],
    benchmark: str,
) -> str:
    """Why what was asked for by name isn't there: no set bears the name, or its download lies elsewhere."""
    known = [name for name in absent if name in all_manifests()]
    paragraphs = [
        f"--dataset {name!r} is unknown.{nearest(name, [*own, *all_manifests()])}"
        for name in absent
        if name not in known
    ]
    if paragraphs:
        held = f"an own set of {folder} ({', '.join(own)})" if own and folder else ", ".join(own)
        paragraphs.append(f"Expected {held}{' or ' if held else ''}a set that `medfsad datasets` lists.")
    if known:
        paragraphs.append(_not_there(folder, known, downloads, left_alone, benchmark))
    return " ".join(paragraphs)


def _not_there(
    folder: Path | None,
    absent: Sequence[str],
    downloads: Sequence[Download],
    left_alone: Sequence[LeftAlone],
    benchmark: str,
) -> str:
    layouts = {all_manifests()[name].layout for name in absent}
    reasons = [f"{item.path}: {item.reason}" for item in left_alone if item.layout in layouts]
    reasons += [item.reason for item in left_alone if item.kind == "failed"]
    content = ", ".join(sorted({download.layout for download in downloads})) or "nothing of a known layout"
    return (
        f"{folder}: {', '.join(absent)} not found for benchmark {benchmark!r}; the folder holds {content}. "
        f"{' '.join(f'{reason}.' for reason in reasons)} `medfsad datasets {absent[0]}` says what the download looks "
        "like and where to get it."
    )


def _nothing(
    folder: Path | None, downloads: Sequence[Download], left_alone: Sequence[LeftAlone], benchmark: str
) -> str:
    incomplete = "".join(f" {item.path}: {item.reason}." for item in left_alone if item.kind == "incomplete")
    content = ", ".join(sorted({download.layout for download in downloads})) or "nothing of a known layout"
    if folder is not None and folder.is_dir() and not downloads and not incomplete:
        content += f" ({hint(folder)})"
    elsewhere = "--benchmark chooses another." if downloads else OWN_FORMS
    return (
        f"{folder}: no raw download of benchmark {benchmark!r} recognised in it; found {content}.{incomplete} `medfsad "
        f"datasets` lists the sets and where to get them, `--scan` what lies there. {elsewhere}"
    )
