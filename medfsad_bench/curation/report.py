"""What became of a set: its report and the sheet of its offending images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medfsad_bench.curation.members import Members
from medfsad_bench.curation.staging import staged_pixels, writing
from medfsad_bench.files import write_json
from medfsad_bench.layouts import Finding
from medfsad_bench.store import Dataset
from medfsad_bench.store.composition import Composition, split_key
from medfsad_bench.store.sheet import write_offenders

_OFFENDERS = 60  # findings that get a picture


@dataclass(frozen=True, slots=True)
class SetReport:
    """What became of one set; written beside its file as JSON."""

    name: str
    benchmark: str
    source: str  # name of the download's folder
    path: str  # of the prepared file; empty, like its digests, if none was written
    wanted: dict[str, int]  # images by side and class that the benchmark asks for
    counts: dict[str, int]  # images by side and class that were chosen
    groups: dict[str, int]  # how many stand on each side
    composition: dict[str, Composition]  # what each class on each side is made up of
    candidates: int  # images with a label of the manifest
    spare: int  # candidates that are on neither side
    quarantined: dict[str, str]  # why an image can't take part, by its id
    findings: list[dict[str, Any]]
    allowed: list[str]  # faults that were let through
    licensed: bool  # whether the prepared file must not be passed on
    membership_digest: str
    content_digest: str
    reused: bool = False  # always; the JSON has had it from the start


def set_report(members: Members, findings: Sequence[Finding] = (), dataset: Dataset | None = None) -> SetReport:
    """What became of a set.

    Args:
        members: Who takes part.
        findings: What layout and audit found; a dry run has the layout's alone.
        dataset: The prepared file, if one was written.
    """
    return SetReport(
        name=members.manifest.name,
        benchmark=members.options.benchmark,
        source=members.download,
        path=str(dataset.path) if dataset else "",
        wanted={split_key(*key): count for key, count in members.split.counts.items()},
        counts={split_key(*key): count for key, count in members.counts.items()},
        groups=members.groups,
        composition=members.composition,
        candidates=len(members.images),
        spare=members.spare,
        quarantined=members.quarantined,
        findings=[asdict(finding) for finding in findings],
        allowed=sorted(members.allowed),
        licensed=members.manifest.licensed,
        membership_digest=str(dataset.attributes["membership_digest"]) if dataset else "",
        content_digest=str(dataset.attributes["content_digest"]) if dataset else "",
    )


def write_report(report: SetReport, members: Members, path: Path, sheet: Path) -> None:
    """Write the report, and a sheet of the offending images where there are any."""
    readable = {image_id for image_id, loaded in members.loaded.items() if not loaded.problem}
    offenders = [
        (
            f"{finding.fault}: {finding.where}: {finding.what}",
            [staged_pixels(members.plan.staging, i, 3)[0] for i in finding.ids],
        )
        for finding in _kinds_first(members.findings)
        if finding.ids and readable.issuperset(finding.ids)
    ]
    with writing(path):
        write_json(path, asdict(report))
        if offenders:
            write_offenders(offenders, sheet)
        else:
            sheet.unlink(missing_ok=True)


def _kinds_first(findings: Sequence[Finding]) -> list[Finding]:
    """One of each kind before the second of any, so that no kind crowds the others out; those that stop come first."""
    count: Counter[str] = Counter()
    ranked = []
    for number, finding in enumerate(findings):
        count[finding.fault] += 1
        ranked.append((not finding.stops, count[finding.fault], number))
    return [findings[number] for *_, number in sorted(ranked)[:_OFFENDERS]]
