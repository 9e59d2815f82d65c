"""`medfsad prepare`: from raw downloads to prepared files.

    unpack → recognise the folder's layout → candidates (labels, slices) → groups → split → read → audit → write

A bad image is a line in the report; a bad set stops, unless `--allow` names the fault, and then the file says so.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medfsad_bench import __version__
from medfsad_bench.curation.audit import Finding, shared_findings, unlabelled_findings
from medfsad_bench.curation.duplicates import Fingerprint, fingerprint
from medfsad_bench.curation.load import Loaded, LoadPlan, staged_chunks, staged_pixels
from medfsad_bench.curation.members import Members
from medfsad_bench.curation.report import FAULTS, PrepareOptions, SetReport, Watcher, split_key, write_report
from medfsad_bench.curation.slices import expand_slices
from medfsad_bench.curation.split import Candidate, choose_smaller, draw_supports
from medfsad_bench.errors import CurationError, DownloadError, ManifestError
from medfsad_bench.layouts import OWN_LAYOUTS, LeftAlone, RawImage, Recognised, recognise
from medfsad_bench.layouts.archives import archives, unpacked
from medfsad_bench.layouts.own_manifest import own_split, plain_manifest
from medfsad_bench.layouts.raw import leads_out
from medfsad_bench.manifest import OWN, Manifest, Split, all_manifests, listed_ids, manifest_text
from medfsad_bench.readers import Intensity
from medfsad_bench.store import Dataset, verify_store
from medfsad_bench.store.sheet import write_contact_sheet, write_offenders
from medfsad_bench.store.writer import Packed, StoreHeader, store_name, write_store

DRAWS = 10
_DECODERS = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pillow", "nibabel", "numpy")


def prepare(
    source: Path, options: PrepareOptions, *, datasets: Sequence[str] = (), watcher: Watcher
) -> tuple[list[SetReport], list[LeftAlone]]:
    """Prepare every set that lies in `source` and belongs to the benchmark.

    Args:
        source: Folder of one raw download or of several; zip files in it, or a zip file itself, are unpacked first.
        options: Where to, which benchmark, how large.
        datasets: Names to restrict to; empty takes all.
        watcher: Shows progress.

    Returns:
        A report a set, and the folders that weren't recognised.

    Raises:
        DownloadError: If nothing in `source` is recognised, or not what was asked for.
        CurationError: If a set isn't what its manifest promises.
    """
    views: list[Path] = []
    recognised, unknown = _recognised(source, options, watcher, views)
    jobs = [(found, manifest) for found in recognised for manifest in _manifests(found, options.benchmark)]
    names = {manifest.name for _, manifest in jobs}
    if datasets and (missing := sorted(set(datasets) - names)):
        raise DownloadError(
            f"{source}: {', '.join(missing)} not found for benchmark {options.benchmark!r}; the folder holds "
            f"{_found(recognised, names)}. `medfsad datasets {missing[0]}` says what the download looks like and where "
            "to get it."
        )
    if not jobs:
        raise DownloadError(
            f"{source}: no raw download of benchmark {options.benchmark!r} recognised there or one level below; found "
            f"{_found(recognised, names)}. `medfsad datasets` lists the expected layouts, --benchmark chooses another."
        )
    wanted = [(found, manifest) for found, manifest in jobs if not datasets or manifest.name in datasets]
    others = _OtherSets(options)
    reports = [_Preparation(found, manifest, options, watcher, others).run() for found, manifest in wanted]
    for view in views:
        shutil.rmtree(view, ignore_errors=True)
    return reports, unknown


def _recognised(
    source: Path, options: PrepareOptions, watcher: Watcher, views: list[Path]
) -> tuple[list[Recognised], list[LeftAlone]]:
    """What lies in the source, and in the zip files in it or one level below that nobody has unpacked."""
    place = options.out / ".staging" / "unpacked"
    if source.is_file() and source.suffix.lower() == ".zip":
        _no_dry_run(source, options)
        views.append(unpacked(source, place, on_start=watcher.start, on_done=watcher.advance))
        return recognise(views[0])
    recognised, left = recognise(source)
    if recognised and recognised[0].root == source:
        return recognised, left
    packed = [item.path for item in left if archives(item.path) and not item.path.is_symlink()]
    packed += [source] if archives(source) else []
    for folder in packed:
        if options.dry_run and not recognised:
            _no_dry_run(folder, options)
        elif not options.dry_run:
            views.append(unpacked(folder, place, on_start=watcher.start, on_done=watcher.advance))
            more, _ = recognise(views[-1])
            recognised += more
            left = [item for item in left if not more or item.path != folder]
    return recognised, left


def _no_dry_run(source: Path, options: PrepareOptions) -> None:
    if options.dry_run:
        raise DownloadError(f"{source.name}: holds zip files, which a dry run doesn't unpack. Leave out --dry-run.")


def _found(recognised: Sequence[Recognised], names: set[str]) -> str:
    return ", ".join(sorted(names) or sorted({found.layout for found in recognised})) or "nothing of a known layout"


def _manifests(found: Recognised, benchmark: str) -> list[Manifest]:
    if found.layout in OWN_LAYOUTS:
        return [plain_manifest(found.root, found.images)]
    manifests = list(all_manifests().values())
    if benchmark == "demo":
        parts = {"medfsad-13k", "medfsad-pixel"}
        return [m for m in manifests if found.layout == m.layout and parts & set(m.benchmarks)]
    return [
        manifest
        for manifest in manifests
        if (split := manifest.benchmarks.get(benchmark)) and found.layout in (manifest.layout, *split.also_from)
    ]


class _Preparation:
    """One set on its way from a recognised folder to its file."""

    def __init__(
        self, found: Recognised, manifest: Manifest, options: PrepareOptions, watcher: Watcher, others: "_OtherSets"
    ) -> None:
        if found.layout in OWN_LAYOUTS:
            options = replace(options, benchmark=OWN)
        self.found, self.manifest, self.options, self.watcher, self.others = found, manifest, options, watcher, others
        self.report = SetReport(manifest.name, options.benchmark, found.root.name, licensed=manifest.licensed)
        self.split = manifest.split(options.benchmark)
        self.report.wanted = {split_key(*key): count for key, count in self.split.counts.items()}
        self.plan = _plan(manifest, options)
        self.folder = options.out / options.benchmark

    def run(self) -> SetReport:
        """Read, choose, audit and write."""
        _check_upstream(self.manifest, self.split, self.found)
        listed = listed_ids(self.manifest, self.split)
        images, unlabelled, outside = _labelled(self.found, self.manifest, self.watcher)
        if self.found.layout in OWN_LAYOUTS:
            self._fit_own(images)
        if self.split.upstream:
            images = {i: image for i, image in images.items() if image.split}
        if listed is not None:
            images = {row.id: images[row.id] for row in listed if row.id in images}
        self.report.candidates = len(images)
        members = Members(self.manifest, self.split, listed, images, self.options, self.report)
        members.findings += unlabelled_findings(unlabelled)
        members.leave_out({i: reason for i, reason in outside.items() if i in images})
        joins = self.manifest.join_near_duplicates and not self.split.upstream
        if joins and listed is None and not self.options.dry_run:
            members.load(self.plan, list(images), self.watcher)
        chosen = members.choose()
        if self.options.dry_run:
            return self.report
        members.load(self.plan, list(chosen), self.watcher)
        while any(i in self.report.quarantined for i in chosen):  # each turn quarantines at least one more
            chosen = members.choose()
            members.load(self.plan, list(chosen), self.watcher)
        members.audit(chosen)
        prints = {i: item.prints for i in chosen if (item := members.loaded[i]).prints is not None}
        members.findings += self.others.findings(self.manifest, prints)
        stopped = self.folder / f"{self.manifest.name}.stopped.json"
        try:
            members.stop_or_allow(stopped)
        except CurationError:
            self._write_findings(members, stopped)
            raise
        stopped.unlink(missing_ok=True)
        stopped.with_suffix(".png").unlink(missing_ok=True)
        self._write(members, chosen)
        self.others.add(self.manifest.name, prints)
        return self.report

    def _fit_own(self, images: Mapping[str, RawImage]) -> None:
        """Counts for a user's own images: half of the normals for training, or what whole patients can fill."""
        split = own_split(list(images.values()), sided=self.split.upstream)
        patients = Counter(image.patient for image in images.values())
        if not split.upstream and max(patients.values(), default=1) > 1:
            normal = set(self.manifest.labels.normal)
            candidates = [Candidate(i, image.patient, image.label not in normal) for i, image in images.items()]
            _, counts = choose_smaller(self.manifest.name, candidates, split)
            if counts:
                sizes = {f"{side}{'' if side == 'train' else '_anomalous' if label else '_normal'}": n
                         for (side, label), n in counts.items()}  # fmt: skip
                split = Split(**sizes)
        self.split = split
        self.manifest = self.manifest.model_copy(update={"benchmarks": {OWN: split}})
        self.report.wanted = {split_key(*key): count for key, count in split.counts.items()}

    def _write(self, members: Members, chosen: Mapping[str, str]) -> None:
        candidates = {c.id: c for c in members.candidates()}
        ids = sorted(chosen)
        rows = [_row(members.images[i], members.loaded[i], candidates[i], chosen[i], self.manifest) for i in ids]
        train = [candidates[i] for i in ids if chosen[i] == "train"]
        position = {image_id: index for index, image_id in enumerate(ids)}
        episodes = [[position[i] for i in draw] for draw in draw_supports(self.manifest.name, train, draws=DRAWS)]
        header = _header(self.manifest, self.options, self.report)
        path = self.folder / store_name(header)
        channels = max(members.loaded[i].channels for i in ids)

        def pixels(index: int) -> tuple[np.ndarray, np.ndarray | None]:
            image, mask = staged_pixels(self.plan, ids[index])
            return (np.repeat(image, 3, axis=2) if image.shape[2] < channels else image), mask

        def packed(index: int) -> Packed | None:
            self.watcher.advance(1)
            same = members.loaded[ids[index]].channels == channels
            return staged_chunks(self.plan, ids[index]) if same else None

        self.watcher.start(f"{self.manifest.name}: writing", len(ids) + 1)
        write_store(path, header, pd.DataFrame(rows), episodes, pixels, chunks=packed, workers=self.options.workers)
        dataset = Dataset(path)
        self.report.path = str(path)
        self.report.membership_digest = dataset.attributes["membership_digest"]
        self.report.content_digest = dataset.attributes["content_digest"]
        try:
            write_contact_sheet(dataset, path.with_name(f"{path.stem}.sheet.png"))
        except OSError as error:
            raise _unwritten(path, error) from error
        self._write_findings(members, path.with_name(f"{path.stem}.report.json"))
        shutil.rmtree(self.plan.staging, ignore_errors=True)

    def _write_findings(self, members: Members, path: Path) -> None:
        """The report, and a sheet of the offenders where there are any."""
        sheet = path.with_name(path.name.removesuffix(".json").removesuffix(".report") + ".findings.png")
        if path.name.endswith(".stopped.json"):
            sheet = path.with_suffix(".png")
        offenders = [
            (f"{finding.fault}: {finding.where}: {finding.what}", [_rgb(self.plan, i) for i in finding.ids])
            for finding in _kinds_first(members.findings)
            if finding.ids and all(i in members.loaded and not members.loaded[i].problem for i in finding.ids)
        ]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_report(self.report, path)
            if offenders:
                write_offenders(offenders, sheet)
            else:
                sheet.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> CurationError:
    return CurationError(
        f"{path}: can't be written ({error.strerror or error}). Free disk space or choose another --out, and run the "
        "same command again."
    )


def _kinds_first(findings: Sequence[Finding], *, most: int = 60) -> list[Finding]:
    """One of each kind before the second of any, so that no kind crowds the others out."""
    seen: dict[str, int] = {}
    ranked = []
    for number, finding in enumerate(findings):
        seen[finding.fault] = seen.get(finding.fault, 0) + 1
        ranked.append((not finding.stops, seen[finding.fault], number, finding))
    return [finding for *_, finding in sorted(ranked, key=lambda item: item[:3])[:most]]


def _rgb(plan: LoadPlan, image_id: str) -> np.ndarray:
    pixels, _ = staged_pixels(plan, image_id)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


@dataclass
class _OtherSets:
    """Fingerprints of the benchmark's other sets in the same folder, to find images that two sets share."""

    options: PrepareOptions
    _known: dict[str, tuple[list[str], list[Fingerprint]]] = field(default_factory=dict)

    def add(self, name: str, prints: Mapping[str, Fingerprint]) -> None:
        self._known[name] = (list(prints), list(prints.values()))

    def findings(self, manifest: Manifest, prints: Mapping[str, Fingerprint]) -> list[Finding]:
        found: list[Finding] = []
        for name in self._names(manifest):
            ids, others = self._known[name]
            together = name in manifest.held_out_with or manifest.name in all_manifests()[name].held_out_with
            found += shared_findings(list(prints), list(prints.values()), name, ids, others, stops=not together)
        return found

    def _names(self, manifest: Manifest) -> list[str]:
        """Sets to compare with; a user's own folders may overlap as they like, and phantoms say nothing."""
        if manifest.name not in all_manifests() or self.options.benchmark in (OWN, "demo"):
            return []
        for path in sorted((self.options.out / self.options.benchmark).glob("*.h5")):
            name = path.name.split("-")[0]
            if name != manifest.name and name in all_manifests() and name not in self._known:
                dataset = Dataset(path)
                images = (dataset.images(np.array([index]))[0] for index in range(len(dataset.table)))
                self._known[name] = (dataset.table["id"].tolist(), [fingerprint(image) for image in images])
        return sorted(set(self._known) - {manifest.name})


def _check_upstream(manifest: Manifest, split: Split, found: Recognised) -> None:
    if split.upstream and not any(image.split for image in found.images):
        raise ManifestError(
            f"{manifest.name}: this benchmark takes the upstream split, which {found.root.name!r} doesn't hold. "
            "Expected the set of MedIAnomaly-Data (zenodo.org/records/12677223) with `images/` and `data.json`; name "
            "its folder with --source."
        )


def _labelled(
    found: Recognised, manifest: Manifest, watcher: Watcher
) -> tuple[dict[str, RawImage], list[str], dict[str, str]]:
    """Images with a label of the manifest, ids without any, and images whose files lie outside of the source."""
    images: Sequence[RawImage] = found.images
    unlabelled = [image.id for image in images if image.label == "unlabelled"]
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
    outside = {}
    for image_id, image in kept.items():
        files = [path for path in (image.path, image.mask) if path is not None]
        if any(leads_out(path, found.root) for path in files):
            outside[image_id] = f"{image.path.name}: a link that leads out of the source; put the file itself there"
    return kept, unlabelled, outside


def _plan(manifest: Manifest, options: PrepareOptions) -> LoadPlan:
    rule = manifest.intensity
    key = f"{options.benchmark}-{manifest.name}-{manifest.version}-{options.size_px}px-{__version__}"
    return LoadPlan(
        intensity=Intensity(rule.mapping, rule.low, rule.high),
        size_px=options.size_px,
        staging=options.out / ".staging" / key,
        keep_masks=manifest.mask_kind != "none",
        channel=rule.channel,
        crop=rule.crop,
    )


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


__all__ = ["DRAWS", "FAULTS", "PrepareOptions", "SetReport", "Watcher", "prepare", "verify_store"]
