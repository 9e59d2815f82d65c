"""What `prepare` and `inspect` print of prepared sets: counts, groups, and what was found while reading."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from medfsad_bench.cli.console import out, unfolded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medfsad_bench.curation.report import SetReport
    from medfsad_bench.store.composition import Composition


def print_reports(reports: "Sequence[SetReport]", benchmark: str) -> None:
    """A table for the benchmark's sets and one for the user's own, then what all of them need said."""
    for title in (benchmark, "own"):
        if of_benchmark := [report for report in reports if report.benchmark == title]:
            out.print(_counts_table(of_benchmark, title))
    if not reports:
        return
    out.print(composition_table({report.name: report.composition for report in reports}))
    folders = sorted({str(Path(report.path).parent) for report in reports})
    out.print(f"Files, reports and contact sheets are in {', '.join(folders)}.", markup=False)
    if any(report.findings or report.quarantined for report in reports):
        out.print(_findings_table(reports))
    for report in reports:
        if "smaller" in report.allowed and benchmark != "demo":
            out.print(f"{report.name}: smaller than the benchmark asks for; file and rows say so.")
        if report.licensed and report.benchmark not in ("demo", "own"):
            out.print(f"{report.name}: the licence of the images doesn't allow you to pass the prepared file on.")
        if report.benchmark == "own":
            out.print(f"{report.name}: your own, no benchmark; `medfsad run METHOD --target {report.name}` uses it.")


def _counts_table(reports: "Sequence[SetReport]", title: str) -> Table:
    from medfsad_bench.store.composition import is_small

    counted = (Column(name, no_wrap=True, justify="right") for name in ("train", "normal", "anomalous", "bad"))
    table = Table(*unfolded("set"), *counted, "notes", title=title)
    for report in reports:
        counts = [f"{report.counts.get(key, 0):,}" for key in ("train normal", "test normal", "test anomalous")]
        notes = [*report.allowed] or ([f"{len(report.findings)} noted"] if report.findings else [])
        notes += ["small"] if is_small(report.composition) else []
        table.add_row(report.name, *counts, str(len(report.quarantined)), ", ".join(notes))
    table.caption = "train: normal images; normal, anomalous: of the test; bad: quarantined"
    return table


def composition_table(by_set: "Mapping[str, Mapping[str, Composition]]") -> Table:
    """Per side and class what a set is made up of, with a mark where a class of the test is small."""
    from medfsad_bench.store.composition import SMALL, is_small

    counted = (Column(name, no_wrap=True, justify="right") for name in ("images", "groups", "largest", "effective"))
    table = Table(*unfolded("set", "class"), *counted, title="groups: images that aren't independent")
    for name, made_of in by_set.items():
        for key, of_class in made_of.items():
            small = " ‡" if is_small({key: of_class}) else ""
            numbers = (f"{n:,}" for n in (of_class.images, of_class.groups, of_class.largest_group))
            table.add_row(name, key, *numbers, f"{of_class.effective_groups:.1f}{small}")
    table.caption = "effective: as how many groups of equal size they count"
    table.caption += f"\n‡ {SMALL}" if any(map(is_small, by_set.values())) else ""
    return table


def _findings_table(reports: "Sequence[SetReport]") -> Table:
    """How often each fault was found, and its first place; all of them are in the reports."""
    caption = "the reports list all of it, with pictures in *.findings.png"
    count = Column("count", no_wrap=True, justify="right")
    table = Table(*unfolded("set", "fault"), count, "first", title="found while reading", caption=caption)
    for report in reports:
        by_fault: dict[str, list[str]] = {}
        for finding in report.findings:
            by_fault.setdefault(finding["fault"], []).append(f"{finding['where']}: {finding['what']}")
        by_fault |= {"quarantined": list(report.quarantined.values())} if report.quarantined else {}
        for fault, findings in by_fault.items():
            table.add_row(report.name, fault, f"{len(findings):,}", escape(findings[0]))
    return table
