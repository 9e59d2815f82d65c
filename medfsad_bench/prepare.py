"""`medfsad prepare`: from raw downloads to prepared files.

    recognise the folder's layout → candidates (labels, slices) → groups → split → read → audit → write

A bad image is a line in the report; a bad set stops, unless `--allow` names the fault, and then the file says so.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from medfsad_bench import __version__
from medfsad_bench.curate.audit import Finding, duplicate_findings, listed_findings, quarantine
from medfsad_bench.curate.duplicates import joined_groups, near_duplicates
from medfsad_bench.curate.load import Loaded, LoadPlan, load_images, staged_pixels
from medfsad_bench.curate.slices import expand_slices
from medfsad_bench.curate.split import Candidate, choose, choose_smaller, draw_supports, tally
from medfsad_bench.errors import CurationError, SourceError
from medfsad_bench.manifest import Listed, Manifest, Split, all_manifests, known_groups, listed_ids, manifest_text
from medfsad_bench.readers import Intensity
from medfsad_bench.sheet import write_contact_sheet
from medfsad_bench.sources import RawImage, Recognised, recognise
from medfsad_bench.sources.plain import OWN, plain_manifest
from medfsad_bench.store import Dataset, StoreHeader, store_name, verify_store, write_store

DRAWS = 10
FAULTS = ("smaller", "near-duplicates", "other-files")
_DECODERS = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pillow", "nibabel", "numpy")


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What the user asked for."""

    out: Path
    benchmark: str = "medfsad-13k"
    size_px: int = 256
    workers: int = 1
    allow: frozenset[str] = frozenset()
    dry_run: bool = False


@dataclass(slots=True)
class SetReport:
    """What became of one set; written beside its file as JSON."""

    name: str
    benchmark: str
    source: str
    path: str = ""
    wanted: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    candidates: int = 0
    spare: int = 0
    quarantined: dict[str, str] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    licensed: bool = False
    membership_digest: str = ""
    content_digest: str = ""
    reused: bool = False


@runtime_checkable
class Watcher(Protocol):
    """Whoever shows progress."""

    def start(self, label: str, total: int) -> None:
        """A stage with `total` steps begins."""

    def advance(self, steps: int) -> None:
        """Some steps are done."""


def prepare(
    source: Path, options: PrepareOptions, *, datasets: Sequence[str] = (), watcher: Watcher
) -> tuple[list[SetReport], list[Path]]:
    """Prepare every set that lies in `source` and belongs to the benchmark.

    Args:
        source: Folder of one raw download or of several.
        options: Where to, which benchmark, how large.
        datasets: Names to restrict to; empty takes all.
        watcher: Shows progress.

    Returns:
        A report a set, and the folders that weren't recognised.

    Raises:
        SourceError: If nothing in `source` is recognised, or not what was asked for.
        CurationError: If a set isn't what its manifest promises.
    """
    recognised, unknown = recognise(source)
    jobs = [(found, manifest) for found in recognised for manifest in _manifests(found, options.benchmark)]
    names = {manifest.name for _, manifest in jobs}
    if datasets and (missing := sorted(set(datasets) - names)):
        raise SourceError(
            f"{source}: {', '.join(missing)} not found for benchmark {options.benchmark!r}; the folder holds "
            f"{_found(recognised, names)}. `medfsad datasets` says what each download looks like."
        )
    if not jobs:
        raise SourceError(
            f"{source}: no raw download of benchmark {options.benchmark!r} recognised there or one level below; found "
            f"{_found(recognised, names)}. `medfsad datasets` lists the expected layouts, --benchmark chooses another."
        )
    wanted = [(found, manifest) for found, manifest in jobs if not datasets or manifest.name in datasets]
    return [_prepare_set(found, manifest, options, watcher) for found, manifest in wanted], unknown


def _found(recognised: Sequence[Recognised], names: set[str]) -> str:
    return ", ".join(sorted(names) or sorted({found.layout for found in recognised})) or "nothing of a known layout"


def _manifests(found: Recognised, benchmark: str) -> list[Manifest]:
    if found.layout == "plain":
        return [plain_manifest(found.root, found.images)]
    return [
        manifest
        for manifest in all_manifests().values()
        if manifest.layout == found.layout and (benchmark in manifest.benchmarks or benchmark == "demo")
        if benchmark != "demo" or {"medfsad-13k", "medfsad-pixel"} & set(manifest.benchmarks)
    ]


def _prepare_set(found: Recognised, manifest: Manifest, options: PrepareOptions, watcher: Watcher) -> SetReport:
    if found.layout == "plain":
        options = replace(options, benchmark=OWN)
    report = SetReport(manifest.name, options.benchmark, found.root.name, licensed=manifest.licensed)
    split = manifest.split(options.benchmark)
    report.wanted = {_key(*key): count for key, count in split.counts.items()}
    listed = listed_ids(manifest, split)
    images = _labelled(found.images, manifest, watcher)
    if listed is not None:
        images = {row.id: images[row.id] for row in listed if row.id in images}
    report.candidates = len(images)
    plan = _plan(manifest, options)
    members = _Members(manifest, split, listed, images, options, report)
    if manifest.join_near_duplicates and listed is None:
        members.load(plan, list(images), watcher)
    chosen = members.choose()
    if options.dry_run:
        return report
    members.load(plan, list(chosen), watcher)
    chosen = members.settle(chosen)
    _write(manifest, options, plan, members, chosen, report, watcher)
    return report


@dataclass(slots=True)
class _Members:
    """Who takes part in one set, as it becomes clear."""

    manifest: Manifest
    split: Split
    listed: list[Listed] | None
    images: dict[str, RawImage]
    options: PrepareOptions
    report: SetReport
    loaded: dict[str, Loaded] = field(default_factory=dict)

    def load(self, plan: LoadPlan, ids: Sequence[str], watcher: Watcher) -> None:
        missing = [self.images[i] for i in ids if i not in self.loaded]
        if missing:
            watcher.start(f"{self.manifest.name}: reading", len(missing))
            self.loaded |= load_images(missing, plan, workers=self.options.workers, on_done=watcher.advance)
        self.report.quarantined = quarantine(self.loaded)

    def candidates(self) -> list[Candidate]:
        ids = [i for i in self.images if i not in self.report.quarantined]
        groups = self._groups(ids)
        normal = set(self.manifest.labels.normal)
        return [Candidate(i, groups[i], self.images[i].label not in normal, self.images[i].split) for i in ids]

    def choose(self) -> dict[str, str]:
        """Apply list or rule.

        Raises:
            CurationError: If the source holds too few and `--allow smaller` isn't given.
        """
        candidates = self.candidates()
        chosen = self._listed_choice() if self.listed is not None else self._ruled_choice(candidates)
        found = tally(candidates, chosen)
        self.report.counts = {_key(*key): found.get(key, 0) for key in self.split.counts}
        self.report.groups = {
            side: len({c.group for c in candidates if chosen.get(c.id) == side}) for side in ("train", "test")
        }
        self.report.spare = len(candidates) - len(chosen)
        return chosen

    def settle(self, chosen: dict[str, str]) -> dict[str, str]:
        """Leave out what turned out bad, and stop on faults that nobody allowed.

        Raises:
            CurationError: With every fault that stops the set.
        """
        if any(i in self.report.quarantined for i in chosen):
            chosen = {i: side for i, side in self.choose().items() if i in self.loaded}
        findings = duplicate_findings(self.candidates(), chosen, self.loaded)
        if self.listed is not None:
            findings += listed_findings(self.listed, self.loaded)
        self.report.findings = [asdict(finding) for finding in findings]
        stopping = [finding for finding in findings if finding.stops]
        self._allow(sorted({finding.fault for finding in stopping}), stopping)
        return chosen

    def _groups(self, ids: Sequence[str]) -> dict[str, str]:
        if self.listed is not None:
            by_id = {row.id: row.group for row in self.listed}
            return {i: by_id[i] for i in ids}
        known = known_groups(self.manifest)
        groups = [known.get(i, self.images[i].patient) for i in ids]
        if self.manifest.join_near_duplicates and all(i in self.loaded for i in ids):
            prints = [item.prints for i in ids if (item := self.loaded[i]).prints is not None]
            pairs = [(a, b) for a, b in near_duplicates(prints) if not (ids[a] in known and ids[b] in known)]
            groups = joined_groups(groups, np.array(pairs, np.int64).reshape(-1, 2))
        return dict(zip(ids, groups, strict=True))

    def _listed_choice(self) -> dict[str, str]:
        rows = self.listed or []
        chosen = {r.id: r.split for r in rows if r.id in self.images and r.id not in self.report.quarantined}
        if len(chosen) < len(rows):
            first = next(r.id for r in rows if r.id not in chosen)
            self._too_few(f"{len(chosen)} of the {len(rows)} listed images (first missing: {first})")
        return dict(chosen)

    def _ruled_choice(self, candidates: list[Candidate]) -> dict[str, str]:
        name = self.manifest.name
        chosen = choose(name, candidates, self.split.counts)
        found = tally(candidates, chosen)
        if found == self.split.counts:
            return chosen
        short = [f"{found.get(k, 0)} of {n} {_key(*k)}" for k, n in self.split.counts.items() if found.get(k, 0) < n]
        self._too_few(", ".join(short))
        chosen, _ = choose_smaller(name, candidates, self.split)
        if not chosen:
            raise CurationError(
                f"{name}: the source {self.report.source!r} can't fill even one image a class on each side "
                f"({', '.join(short)}; {len(self.report.quarantined)} quarantined). Complete the download."
            )
        return chosen

    def _too_few(self, what: str) -> None:
        if "smaller" not in self.options.allow and self.options.benchmark != "demo":
            bad = self.report.quarantined
            detail = f"; {len(bad)} image(s) can't be read, first {next(iter(bad.items()))}" if bad else ""
            raise CurationError(
                f"{self.manifest.name}: the source {self.report.source!r} holds {what}{detail}. Benchmark "
                f"{self.options.benchmark!r} needs all of them. Complete the download, or pass --allow smaller for a "
                "scaled-down file that isn't the benchmark and says so in its name and in every row."
            )
        self._note("smaller")

    def _allow(self, faults: Sequence[str], stopping: Sequence[Finding]) -> None:
        refused = [fault for fault in faults if fault not in self.options.allow]
        if refused:
            lines = "; ".join(f"{finding.where}: {finding.what}" for finding in stopping[:5])
            raise CurationError(
                f"{self.manifest.name}: {len(stopping)} fault(s) of kind {', '.join(refused)} ({lines}"
                f"{'; …' if len(stopping) > 5 else ''}). Expected none. Report it, or write the file all the same with "
                f"--allow {refused[0]}; the file will say so."
            )
        for fault in faults:
            self._note(fault)

    def _note(self, fault: str) -> None:
        if fault not in self.report.allowed:
            self.report.allowed = sorted([*self.report.allowed, fault])


def _labelled(images: Sequence[RawImage], manifest: Manifest, watcher: Watcher) -> dict[str, RawImage]:
    if manifest.slices is not None:
        patients = sorted({image.patient for image in images})
        watcher.start(f"{manifest.name}: choosing slices", len(patients))
        expanded = []
        for patient in patients:
            expanded += expand_slices([i for i in images if i.patient == patient], manifest.slices)
            watcher.advance(1)
        images = expanded
    labels = {*manifest.labels.normal, *manifest.labels.anomalous}
    kept: dict[str, RawImage] = {}
    for image in images:
        if image.label not in labels:
            continue
        if image.id in kept:
            raise CurationError(
                f"{manifest.name}: the id {image.id!r} stands for two files ({kept[image.id].path.name}, "
                f"{image.path.name}). Expected unique names; unpack the download again into an empty folder."
            )
        kept[image.id] = image
    return kept


def _plan(manifest: Manifest, options: PrepareOptions) -> LoadPlan:
    rule = manifest.intensity
    key = f"{options.benchmark}-{manifest.name}-{manifest.version}-{options.size_px}px-{__version__}"
    return LoadPlan(
        intensity=Intensity(rule.mapping, rule.low, rule.high),
        size_px=options.size_px,
        staging=options.out / ".staging" / key,
        keep_masks=manifest.mask_kind != "none",
        channel=rule.channel,
    )


def _write(
    manifest: Manifest,
    options: PrepareOptions,
    plan: LoadPlan,
    members: _Members,
    chosen: Mapping[str, str],
    report: SetReport,
    watcher: Watcher,
) -> None:
    groups = {c.id: c for c in members.candidates()}
    ids = sorted(chosen)
    table = pd.DataFrame([_row(members.images[i], members.loaded[i], groups[i], chosen[i], manifest) for i in ids])
    train = [groups[i] for i in ids if chosen[i] == "train"]
    position = {image_id: index for index, image_id in enumerate(ids)}
    episodes = [[position[i] for i in draw] for draw in draw_supports(manifest.name, train, draws=DRAWS)]
    header = _header(manifest, options, report)
    path = options.out / options.benchmark / store_name(header)
    channels = max(members.loaded[i].channels for i in ids)

    def pixels(index: int) -> tuple[np.ndarray, np.ndarray | None]:
        image, mask = staged_pixels(plan, ids[index])
        watcher.advance(1)
        return (np.repeat(image, 3, axis=2) if image.shape[2] < channels else image), mask

    watcher.start(f"{manifest.name}: writing", len(ids) + 1)
    write_store(path, header, table, episodes, pixels)
    dataset = Dataset(path)
    report.path = str(path)
    report.membership_digest = dataset.attributes["membership_digest"]
    report.content_digest = dataset.attributes["content_digest"]
    write_contact_sheet(dataset, path.with_name(f"{path.stem}.sheet.png"))
    _write_report(report, path.with_name(f"{path.stem}.report.json"))
    shutil.rmtree(plan.staging, ignore_errors=True)


def _row(image: RawImage, loaded: Loaded, candidate: Candidate, split: str, manifest: Manifest) -> dict[str, Any]:
    spacing = loaded.spacing_mm or (np.nan, np.nan)
    return {
        "id": image.id,
        "patient": image.patient,
        "group": candidate.group,
        "label": int(candidate.anomalous),
        "disease": (image.disease or manifest.disease) if candidate.anomalous else "",
        "split": split,
        "path": image.path.name if image.slice_index is None else f"{image.path.name}#{image.slice_index}",
        "sha256": loaded.sha256,
        "height": loaded.height,
        "width": loaded.width,
        "spacing_row_mm": spacing[0],
        "spacing_column_mm": spacing[1],
        "window": loaded.window,
        "transfer_syntax": loaded.transfer_syntax,
        "warnings": "; ".join(loaded.warnings),
    }


def _header(manifest: Manifest, options: PrepareOptions, report: SetReport) -> StoreHeader:
    text = manifest_text(manifest.name) if manifest.name in all_manifests() else manifest.model_dump_json(indent=1)
    return StoreHeader(
        benchmark=options.benchmark,
        name=manifest.name,
        version=manifest.version,
        size_px=options.size_px,
        manifest=text,
        code_version=__version__,
        decoders=" ".join(f"{name}={version(name)}" for name in _DECODERS),
        mask_kind=manifest.mask_kind,
        allowed=tuple(report.allowed),
        extra={
            "organ": manifest.organ,
            "modality": manifest.modality,
            "held_out_with": json.dumps(sorted(manifest.held_out_with)),
            "licensed": json.dumps(manifest.licensed),
        },
    )


def _write_report(report: SetReport, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)


def _key(split: str, anomalous: bool) -> str:
    return f"{split} {'anomalous' if anomalous else 'normal'}"


__all__ = ["DRAWS", "FAULTS", "PrepareOptions", "SetReport", "Watcher", "prepare", "verify_store"]
