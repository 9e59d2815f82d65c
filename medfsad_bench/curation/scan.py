"""What lies in a folder, before anything is unpacked or read: which sets are there, which are incomplete or nowhere."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medfsad_bench.curation.own_sets import check_own
from medfsad_bench.curation.split import Candidate, choose, chosen_counts
from medfsad_bench.curation.stage import OwnImages, benchmark_manifests, downloads_of, names_of
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts import Download, LeftAlone
from medfsad_bench.layouts.raw import files_below, stem
from medfsad_bench.manifest import Manifest, all_manifests, committed_groups, listed_ids
from medfsad_bench.store.composition import split_key

Status = Literal["found", "incomplete", "other benchmark", "own", "copy", "damaged", "not recognised"]


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing that lies in the folder.

    Attributes:
        status: What can be said of it.
        path: Of the folder or zip file.
        name: Of the set; empty where it is none of the benchmark's.
        detail: What it holds, or what is missing.
    """

    status: Status
    path: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies in a folder.

    Attributes:
        benchmark: Whose sets were looked for.
        sights: What was found, sets of the benchmark first.
        absent: Sets of the benchmark that are nowhere.
    """

    benchmark: str
    sights: list[Sight]
    absent: list[str]

    def lacks(self, datasets: Sequence[str]) -> list[str]:
        """Those of the sets asked for that aren't there, or not whole."""
        whole = {sight.name for sight in self.sights if sight.status in ("found", "own")}
        return [name for name in datasets if name not in whole]


def scan(folder: Path | None, benchmark: str, *, own: OwnImages | None = None, name: str | None = None) -> Scan:
    """Look for the sets of a benchmark, in zip files by their listing; nothing is unpacked and no pixel is read.

    Raises:
        DownloadError: If `folder` is neither a folder nor a zip file.
    """
    downloads, left_alone = downloads_of(folder, own)
    names = names_of(downloads, name)
    sights = [
        sight for number, download in enumerate(downloads) for sight in _sights(download, names[number], benchmark)
    ]
    sights += [sight for item in left_alone for sight in _left_alone(item, benchmark)]
    order = list(Status.__args__)  # type: ignore[attr-defined]
    sights.sort(key=lambda sight: (order.index(sight.status), sight.path))
    seen = {sight.name for sight in sights if sight.status != "own"}
    needed = [m.name for m in all_manifests().values() if benchmark in m.benchmarks]
    return Scan(benchmark, sights, [needed_name for needed_name in needed if needed_name not in seen])


def _sights(download: Download, name: str, benchmark: str) -> list[Sight]:
    path = str(download.origin)
    if download.is_own:
        labels = Counter("anomalous" if image.label == "unlabelled" else image.label for image in download.images)
        detail = ", ".join(f"{count:,} {label}" for label, count in sorted(labels.items(), reverse=True))
        detail += f"; {len(download.missing):,} files missing" if download.missing else ""
        try:
            check_own(name, download.images)
        except CurationError as error:
            return [Sight("incomplete", path, name, str(error))]
        return [Sight("own", path, name, detail)]
    if manifests := benchmark_manifests(download.layout, benchmark):
        return [_of_set(download, manifest, benchmark) for manifest in manifests]
    return [Sight("other benchmark", path, "", f"{download.layout}: {_where_it_goes(download.layout)}")]


def _of_set(download: Download, manifest: Manifest, benchmark: str) -> Sight:
    """Whether a download can fill a set's counts, as far as names and tables tell."""
    split = manifest.split(benchmark)
    listed = listed_ids(manifest, split)
    path = str(download.origin)
    if listed is not None:
        there = {image.id for image in download.images}
        lacking = [row.id for row in listed if row.id not in there]
        if lacking and manifest.slices is None:
            detail = f"lacks {len(lacking):,} of {len(listed):,} listed images (first {lacking[0]})"
            return Sight("incomplete", path, manifest.name, detail)
        return Sight("found", path, manifest.name, f"all {len(listed):,} listed images")
    if manifest.slices is not None:
        patients = len({image.patient for image in download.images})
        return Sight("found", path, manifest.name, f"{patients:,} patients; reading them shows how many slices fit")
    groups, labels = committed_groups(manifest), manifest.labels
    candidates = [
        Candidate(image.id, groups.get(image.id, image.patient), image.label in labels.anomalous, image.split)
        for image in download.images
        if image.label in (*labels.normal, *labels.anomalous) and (image.split or not split.upstream)
    ]
    counts = chosen_counts(candidates, choose(manifest.name, candidates, split.counts))
    short = [
        f"{wanted - counts.get(key, 0):,} of {wanted:,} {split_key(*key)}"
        for key, wanted in split.counts.items()
        if counts.get(key, 0) < wanted
    ]
    if short:
        missing = f"; {len(download.missing):,} files that its table names are missing" if download.missing else ""
        return Sight("incomplete", path, manifest.name, f"lacks {', '.join(short)}{missing}")
    return Sight(
        "found", path, manifest.name, f"{len(candidates):,} images to choose {sum(split.counts.values()):,} from"
    )


def _left_alone(item: LeftAlone, benchmark: str) -> list[Sight]:
    path = str(item.path.with_name(item.name))
    if item.kind == "failed":
        return [Sight("damaged", path, "", item.reason)]
    if item.kind == "copy":
        return [Sight("copy", path, "", item.reason)]
    if item.kind == "incomplete":
        manifests = benchmark_manifests(item.layout, benchmark)
        there = {stem(file) for file in files_below(item.path)} if manifests and item.path.is_dir() else set()
        if not manifests:
            return [Sight("incomplete", path, "", f"{item.reason}; {_where_it_goes(item.layout)}")]
        return [
            Sight("incomplete", path, manifest.name, item.reason + _listed_count(manifest, benchmark, there))
            for manifest in manifests
        ]
    return [Sight("not recognised", path, "", item.reason)]


def _listed_count(manifest: Manifest, benchmark: str, names: set[str]) -> str:
    """How many listed images have a file of their name, wherever it lies; empty without a list."""
    listed = listed_ids(manifest, manifest.split(benchmark)) or []
    there = sum(row.id.rpartition("/")[2] in names for row in listed)
    return f"; has {there:,} of {len(listed):,} listed images" if listed else ""


def _where_it_goes(layout: str) -> str:
    names = {
        benchmark
        for manifest in all_manifests().values()
        for benchmark, split in manifest.benchmarks.items()
        if layout in (manifest.layout, *split.also_from)
    }
    return f"--benchmark {' or '.join(sorted(names))} takes it" if names else "no benchmark takes it"
