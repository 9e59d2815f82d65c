"""`medfsad prepare`: from raw downloads to prepared files.

    unpack → recognise layouts → which sets of the benchmark they hold → prepare one set after the other

A bad image is a line in the report; a bad set stops, unless `--allow` names the fault, and then the file says so.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from medfsad_bench.curation.duplicates import Fingerprint
from medfsad_bench.curation.one_set import prepare_set
from medfsad_bench.curation.options import FAULTS, PrepareOptions, Watcher
from medfsad_bench.curation.out_folder import sole_writer
from medfsad_bench.curation.own_manifest import plain_manifest
from medfsad_bench.curation.report import SetReport
from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import OWN_LAYOUTS, Download, LeftAlone, recognise
from medfsad_bench.layouts.archives import archives, unpacked
from medfsad_bench.manifest import Manifest, all_manifests

__all__ = ["FAULTS", "PrepareOptions", "SetReport", "prepare"]


def prepare(
    folder: Path, options: PrepareOptions, *, datasets: Sequence[str] = (), watcher: Watcher
) -> tuple[list[SetReport], list[LeftAlone]]:
    """Prepare every set that lies in `folder` and belongs to the benchmark.

    Args:
        folder: Of one raw download or of several; zip files in it, or a zip file itself, are unpacked first.
        options: Where to, which benchmark, how large.
        datasets: Names to restrict to; empty takes all.
        watcher: Shows progress.

    Returns:
        A report per set, and the folders that weren't recognised.

    Raises:
        DownloadError: If nothing in `folder` is recognised, or not what was asked for.
        CurationError: If a set isn't what its manifest promises.
        ManifestError: If a benchmark takes a split that the download doesn't hold.
    """
    unpacked_folders: list[Path] = []
    downloads, left_alone = _downloads(folder, options, watcher, unpacked_folders)
    sets = [(download, manifest) for download in downloads for manifest in _manifests(download, options.benchmark)]
    _check_wanted(folder, options.benchmark, datasets, downloads, {manifest.name for _, manifest in sets})
    prints_by_set: dict[str, Mapping[str, Fingerprint]] = {}
    with nullcontext() if options.dry_run else sole_writer(options.out, folder, watcher):
        reports = [
            prepare_set(download, manifest, options, watcher, prints_by_set)
            for download, manifest in sets
            if not datasets or manifest.name in datasets
        ]
        for path in unpacked_folders:
            shutil.rmtree(path, ignore_errors=True)
    return reports, left_alone


def _downloads(
    folder: Path, options: PrepareOptions, watcher: Watcher, unpacked_folders: list[Path]
) -> tuple[list[Download], list[LeftAlone]]:
    """What lies in the folder, and in the zip files in it or one level below that nobody has unpacked."""

    def unpack(packed: Path) -> Path:
        if options.dry_run:
            raise DownloadError(f"{packed.name}: holds zip files, which a dry run doesn't unpack. Leave out --dry-run.")
        staging = options.out / ".staging" / "unpacked"
        unpacked_folders.append(unpacked(packed, staging, on_start=watcher.start, on_done=watcher.advance))
        return unpacked_folders[-1]

    if folder.is_file() and folder.suffix.lower() == ".zip":
        return recognise(unpack(folder))
    downloads, left_alone = recognise(folder)
    if downloads and downloads[0].root == folder:
        return downloads, left_alone
    packed = [item.path for item in left_alone if archives(item.path) and not item.path.is_symlink()]
    packed += [folder] if archives(folder) else []
    if options.dry_run and downloads:
        return downloads, left_alone
    for path in packed:
        more, _ = recognise(unpack(path))
        downloads += more
        left_alone = [item for item in left_alone if not more or item.path != path]
    return downloads, left_alone


def _manifests(download: Download, benchmark: str) -> list[Manifest]:
    """The sets of a benchmark that are made from a download; phantoms stand for those of two benchmarks."""
    if download.layout in OWN_LAYOUTS:
        return [plain_manifest(download.root, download.images)]
    manifests = all_manifests().values()
    if benchmark == "demo":
        parts = {"medfsad-13k", "medfsad-pixel"}
        return [m for m in manifests if download.layout == m.layout and parts & set(m.benchmarks)]
    splits = ((manifest, manifest.benchmarks.get(benchmark)) for manifest in manifests)
    return [m for m, split in splits if split and download.layout in (m.layout, *split.also_from)]


def _check_wanted(
    folder: Path, benchmark: str, datasets: Sequence[str], downloads: Sequence[Download], names: set[str]
) -> None:
    layouts = {download.layout for download in downloads}
    content = ", ".join(sorted(names or layouts)) or "nothing of a known layout"
    if missing := sorted(set(datasets) - names):
        raise DownloadError(
            f"{folder}: {', '.join(missing)} not found for benchmark {benchmark!r}; the folder holds {content}. "
            f"`medfsad datasets {missing[0]}` says what the download looks like and where to get it."
        )
    if not names:
        raise DownloadError(
            f"{folder}: no raw download of benchmark {benchmark!r} recognised there or one level below; found "
            f"{content}. `medfsad datasets` lists the expected layouts, --benchmark chooses another."
        )
