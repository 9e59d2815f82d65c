"""Images that two prepared sets share, found by content: one must not train what is tested on the other."""

from collections.abc import Mapping, MutableMapping
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from medfsad_bench.curation.audit import shared_findings
from medfsad_bench.curation.duplicates import Fingerprint, fingerprint
from medfsad_bench.curation.members import Members
from medfsad_bench.curation.workers import map_on_cluster
from medfsad_bench.layouts import Finding
from medfsad_bench.manifest import OWN, all_manifests
from medfsad_bench.store import Dataset, prepared_files

_PART = 64  # images whose fingerprints are made in one go
PrintsByFile = MutableMapping[Path, Mapping[str, Fingerprint]]


def shared_with_others(members: Members, prints_by_file: PrintsByFile) -> tuple[list[Finding], tuple[str, ...]]:
    """Findings of images that other prepared files of `--out` hold too, and the sets to hold out with this one.

    Two sets of one benchmark that share images stop, unless their manifests say so. A user's own may overlap with
    whatever they like: it is noted, and neither trains a method that is tested on the other. Phantoms say nothing.

    Args:
        members: Of the set that is to be written.
        prints_by_file: Fingerprints by image id of prepared files that were looked at already; those looked at are
            added.
    """
    manifest, benchmark = members.manifest, members.options.benchmark
    manifests = all_manifests()
    if benchmark == "demo":
        return [], ()
    findings, together = [], set(manifest.held_out_with)
    for path, other in sorted(_others(members.options.out, benchmark, manifest.name).items()):
        if path not in prints_by_file:
            prints_by_file[path] = _prints(Dataset(path), on_cluster=members.options.on_cluster)
        own = OWN in (benchmark, path.parent.name)
        stated = other in manifest.held_out_with or (
            other in manifests and manifest.name in manifests[other].held_out_with
        )
        stops = not (own or stated)
        shared = shared_findings(members.prints, other, prints_by_file[path], stops=stops, compare=members.compare)
        findings += shared
        together |= {other} if shared else set()
    return findings, tuple(sorted(together))


def _others(out: Path, benchmark: str, name: str) -> dict[Path, str]:
    """Sets that could train this one or be tested after training on it, by their files."""
    folders = [
        folder for folder in (out.iterdir() if out.is_dir() else ()) if folder.is_dir() and folder.name != "demo"
    ]
    if benchmark != OWN:
        folders = [folder for folder in folders if folder.name in (benchmark, OWN)]
    files = {path: Dataset(path).name for folder in folders for path in prepared_files(folder)}
    return {path: other for path, other in files.items() if (path.parent.name, other) != (benchmark, name)}


def _prints(dataset: Dataset, *, on_cluster: bool) -> dict[str, Fingerprint]:
    count = len(dataset.table)
    parts = [range(start, min(start + _PART, count)) for start in range(0, count, _PART)]
    prints_of = partial(_prints_of, dataset.path)
    prints = chain.from_iterable(map_on_cluster(prints_of, parts) if on_cluster else map(prints_of, parts))
    return dict(zip(dataset.table["id"], prints, strict=True))


def _prints_of(path: Path, rows: range) -> list[Fingerprint]:
    dataset = Dataset(path)
    return [fingerprint(dataset.images(np.array([row]))[0]) for row in rows]
