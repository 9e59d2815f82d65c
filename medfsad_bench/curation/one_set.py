"""One set on its way from a recognised download to its file.

labels, slices → members (list or rule, groups) → read → audit → write
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medfsad_bench import __version__
from medfsad_bench.curation.audit import unlabelled_findings
from medfsad_bench.curation.intensity import own_intensity
from medfsad_bench.curation.load import LoadPlan
from medfsad_bench.curation.members import Members
from medfsad_bench.curation.options import PrepareOptions, Watcher
from medfsad_bench.curation.report import SetReport, set_report, write_report
from medfsad_bench.curation.shared import PrintsByFile, shared_with_others
from medfsad_bench.curation.shortcomings import missing_file_findings, one_group_findings
from medfsad_bench.curation.slices import Slices, expand_slices, stacks
from medfsad_bench.curation.split import Candidate, draw_supports
from medfsad_bench.curation.staging import staged_chunks, staged_pixels, writing
from medfsad_bench.errors import CurationError, ManifestError
from medfsad_bench.layouts import Download, Finding, RawImage
from medfsad_bench.layouts.walk import is_storable, readable, walk
from medfsad_bench.manifest import OWN, Manifest, Split, all_manifests, listed_ids, manifest_text
from medfsad_bench.readers import Intensity
from medfsad_bench.store import Dataset
from medfsad_bench.store.prepared import origin_digest
from medfsad_bench.store.sheet import write_contact_sheet
from medfsad_bench.store.writer import Packed, StoreHeader, store_name, write_store

_DRAWS = 10
_DECODERS = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pillow", "nibabel", "numpy")


def prepare_set(
    download: Download,
    manifest: Manifest,
    options: PrepareOptions,
    watcher: Watcher,
    prints_by_file: PrintsByFile,
) -> SetReport:
    """Read, choose, audit and write one set.

    Args:
        download: In which it lies.
        manifest: What the set is.
        options: Where to, which benchmark, how large.
        watcher: Shows progress.
        prints_by_file: Fingerprints of prepared sets by image id, to find images that two of them share; this one's are
            added.

    Raises:
        CurationError: If the set isn't what its manifest promises.
        ManifestError: If the benchmark takes a split that the download doesn't hold.
    """
    members = _members(download, manifest, options, watcher)
    _stop_if_refused(members)
    if options.dry_run:
        members.choose()
        return set_report(members, members.findings)
    members.choose_and_load()
    members.audit()
    members.note(one_group_findings(members.composition))
    shared, members.held_out_with = shared_with_others(members, prints_by_file)
    members.note(shared)
    _stop_if_refused(members)
    report = _write(members)
    prints_by_file[Path(report.path)] = members.prints
    return report


def _members(download: Download, manifest: Manifest, options: PrepareOptions, watcher: Watcher) -> Members:
    """The images that may take part."""
    own = download.is_own
    options = replace(options, benchmark=OWN) if own else options
    if options.intensity and not own:
        raise CurationError(
            f"{manifest.name}: --intensity is for folders of your own; the manifest fixes how a set of the benchmark "
            "is shown. Leave it out, or name your own folder alone with --source."
        )
    split = manifest.split(options.benchmark)
    _check_upstream(manifest, split, download)
    listed = listed_ids(manifest, split)
    images, slices = _labelled(download, manifest, options, watcher)
    intensity_findings: list[Finding] = []
    if own:
        intensity, intensity_findings = own_intensity(manifest, list(images.values()), options.intensity)
        manifest = manifest.model_copy(update={"intensity": intensity})
    if split.upstream:
        images = {i: image for i, image in images.items() if image.split}
    if listed is not None:
        images = {row.id: images[row.id] for row in listed if row.id in images}
    plan = _load_plan(manifest, options)
    members = Members(manifest, split, listed, images, readable(download.root.name), options, plan, watcher)
    members.origin = origin_digest(download.origin) if own else ""
    listed_images = None if listed is None else {row.id for row in listed}
    labels = (*manifest.labels.normal, *manifest.labels.anomalous)
    members.note([Finding("left-out", item.where, item.what, stops=False) for item in walk(download.root).unreachable])
    members.note(missing_file_findings(download.missing, listed_images, labels))
    members.note([*download.findings, *slices.findings, *intensity_findings])
    members.note(unlabelled_findings([image.id for image in download.images if image.label == "unlabelled"]))
    members.leave_out(slices.problems | _outside(images.values(), download))
    return members


def _check_upstream(manifest: Manifest, split: Split, download: Download) -> None:
    if split.upstream and not any(image.split for image in download.images):
        raise ManifestError(
            f"{manifest.name}: this benchmark takes the upstream split, which {download.root.name!r} doesn't hold. "
            "Expected the set of MedIAnomaly-Data (zenodo.org/records/12677223) with `images/` and `data.json`; name "
            "its folder with --source."
        )


def _labelled(
    download: Download, manifest: Manifest, options: PrepareOptions, watcher: Watcher
) -> tuple[dict[str, RawImage], Slices]:
    """Images with a label of the manifest, by id, and what became of volumes."""
    slices = Slices(download.images)
    if manifest.slices is not None:
        watcher.start(f"{manifest.name}: choosing slices", len(stacks(download.images)))
        slices = expand_slices(
            download.images, manifest.slices, one_to_one=_one_to_one(options), on_done=watcher.advance
        )
    labelled: dict[str, RawImage] = {}
    for image in slices.images:
        if image.label not in (*manifest.labels.normal, *manifest.labels.anomalous) or not is_storable(image.id):
            continue
        if image.id in labelled:
            raise CurationError(
                f"{manifest.name}: the id {image.id!r} stands for two files ({labelled[image.id].path.name}, "
                f"{image.path.name}). Expected unique names; unpack the download again into an empty folder."
            )
        labelled[image.id] = image
    return labelled, slices


def _one_to_one(options: PrepareOptions) -> bool:
    return "mask-grid" in options.allow


def _load_plan(manifest: Manifest, options: PrepareOptions) -> LoadPlan:
    rule = manifest.intensity
    how = hashlib.sha256(f"{rule.model_dump_json()} {_one_to_one(options)}".encode()).hexdigest()[:8]
    key = f"{options.benchmark}-{manifest.name}-{manifest.version}-{options.size_px}px-{__version__}-{how}"
    return LoadPlan(
        intensity=Intensity(rule.mapping, rule.low, rule.high),
        size_px=options.size_px,
        staging=options.out / ".staging" / key,
        keep_masks=manifest.mask_kind != "none",
        channel=rule.channel,
        crop=rule.crop,
        one_to_one=_one_to_one(options),
    )


def _outside(images: Iterable[RawImage], download: Download) -> dict[str, str]:
    """Images whose file or mask is a link that leads out of the download, with the reason to leave them out."""
    return {
        image.id: f"{image.path.name}: a link that leads out of the download; put the file itself there"
        for image in images
        if not all(download.holds(path) for path in (image.path, *image.masks))
    }


def _folder(members: Members) -> Path:
    return members.options.out / members.options.benchmark


def _stop_if_refused(members: Members) -> None:
    """Stop at faults that the user didn't allow, with a report of all that is known by now.

    Raises:
        CurationError: If there is one.
    """
    stopped = _folder(members) / f"{members.manifest.name}.stopped.json"
    if refused := members.let_through():
        if not members.options.dry_run:
            write_report(set_report(members, members.findings), members, stopped, stopped.with_suffix(".png"))
        raise CurationError(_refusal(members, refused, stopped))
    if not members.options.dry_run:
        stopped.unlink(missing_ok=True)
        stopped.with_suffix(".png").unlink(missing_ok=True)


def _refusal(members: Members, refused: Sequence[str], path: Path) -> str:
    stopping = [finding for finding in members.findings if finding.stops]
    lines = "; ".join(f"{finding.where}: {finding.what}" for finding in stopping[:5])
    return (
        f"{members.manifest.name}: {len(stopping)} fault(s) of kind {', '.join(refused)} ({lines}"
        f"{'; …' if len(stopping) > 5 else ''}). Expected none; all are listed in {path}, with a picture beside it. "
        f"Report it, or write the file all the same with {' '.join(f'--allow {fault}' for fault in refused)}; the file "
        "will say so."
    )


def _write(members: Members) -> SetReport:
    """Write the file, its contact sheet and its report, and clear the staging folder."""
    name, staging = members.manifest.name, members.plan.staging
    candidates = {candidate.id: candidate for candidate in members.candidates}
    ids = sorted(members.chosen)
    table = pd.DataFrame([_row(members, candidates[i]) for i in ids])
    train = [candidates[i] for i in ids if members.chosen[i] == "train"]
    position = {image_id: index for index, image_id in enumerate(ids)}
    episodes = [[position[i] for i in draw] for draw in draw_supports(name, train, draws=_DRAWS)]
    channels = max(members.loaded[i].channels for i in ids)

    def pixels(index: int) -> tuple[np.ndarray, np.ndarray | None]:
        return staged_pixels(staging, ids[index], channels)

    def chunks(index: int) -> Packed | None:
        members.watcher.advance(1)
        same = members.loaded[ids[index]].channels == channels
        return staged_chunks(staging, ids[index]) if same else None

    header = _header(members)
    path = _folder(members) / store_name(header)
    members.watcher.start(f"{name}: writing", len(ids) + 1)
    write_store(path, header, table, episodes, pixels, chunks=chunks, workers=members.options.workers)
    dataset = Dataset(path)
    with writing(path):
        write_contact_sheet(dataset, path.with_suffix(".sheet.png"))
    report = set_report(members, members.findings, dataset)
    write_report(report, members, path.with_suffix(".report.json"), path.with_suffix(".findings.png"))
    shutil.rmtree(staging, ignore_errors=True)
    return report


def _row(members: Members, candidate: Candidate) -> dict[str, Any]:
    image, loaded = members.images[candidate.id], members.loaded[candidate.id]
    spacing = loaded.spacing_mm or (np.nan, np.nan)
    return {
        "id": image.id,
        "patient": image.patient,
        "group": candidate.group,
        "label": int(candidate.anomalous),
        "disease": (image.disease or members.manifest.disease) if candidate.anomalous else "",
        "split": members.chosen[candidate.id],
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


def _header(members: Members) -> StoreHeader:
    manifest, options = members.manifest, members.options
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
        allowed=tuple(sorted(members.allowed)),
        extra={
            "organ": manifest.organ,
            "modality": manifest.modality,
            "held_out_with": json.dumps(sorted(members.held_out_with)),
            "licensed": json.dumps(manifest.licensed),
            **({"origin": members.origin} if members.origin else {}),
        },
    )
