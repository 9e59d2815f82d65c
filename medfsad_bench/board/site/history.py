"""What was superseded, which versions a benchmark has had, and what is new."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from medfsad_bench.board.groups import Group, groups
from medfsad_bench.board.significance import Evidence
from medfsad_bench.manifest import OWN, all_manifests, is_current
from medfsad_bench.results.row import Row


@dataclass(frozen=True, slots=True)
class BenchmarkVersion:
    """A benchmark as it was while its sets had certain versions: it has no number of its own.

    Attributes:
        benchmark: Its name.
        sets: Version of each set that has rows.
        current: Whether these are the versions of this release.
        rows: All rows on them.
        board: The tracks, ranked among themselves.
        digest: Of the runs' ids: two pages of one digest hold the same rows.
    """

    benchmark: str
    sets: dict[str, str]
    current: bool
    rows: tuple[Row, ...]
    board: tuple[Group, ...]
    digest: str

    @property
    def name(self) -> str:
        """The benchmark with the version that most of its sets have, and those that have another."""
        counts = Counter(self.sets.values())
        commonest = max(counts, key=lambda version: (counts[version], _as_numbers(version)))
        others = [f"{name} at {version}" for name, version in self.sets.items() if version != commonest]
        return f"{self.benchmark}, sets at {commonest}" + (f" except {', '.join(others)}" if others else "")

    @property
    def key(self) -> str:
        """Of these versions, whatever others there are: who cites the page finds it again."""
        lines = "\n".join(f"{name} {version}" for name, version in self.sets.items())
        return f"{self.benchmark}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"

    @property
    def page(self) -> str:
        """Address of its page."""
        return f"versions/{self.key}.html"


@dataclass(frozen=True, slots=True)
class Change:
    """Something new, on a day.

    Attributes:
        date: As rows state it.
        text: What it is.
        page: That shows it.
        key: By which a reader of the feed knows it again.
    """

    date: str
    text: str
    page: str
    key: str


def benchmark_versions(
    rows: Sequence[Row], evidence: Evidence, reproduced: Collection[str], *, today: Sequence[Group] | None = None
) -> list[BenchmarkVersion]:
    """Every version of every benchmark that there are rows of, the newest first; own sets have none.

    The first version takes of each set the oldest one that has rows, the next one the next oldest, and of a set that
    has no further one the last.

    Args:
        rows: Of the board.
        evidence: Scores by run id.
        reproduced: Run ids of rows that a maintainer has re-run.
        today: The tracks of these rows where they are ranked already; a version that is today's takes them.
    """
    versions = []
    for benchmark in sorted({row.benchmark for row in rows} - {OWN}):
        of_benchmark = [row for row in rows if row.benchmark == benchmark]
        by_set: dict[str, set[str]] = defaultdict(set)
        for row in of_benchmark:
            by_set[row.target].add(row.target_version)
        ordered = {name: sorted(of_set, key=_as_numbers) for name, of_set in sorted(by_set.items())}
        for number in range(max(map(len, ordered.values())), 0, -1):
            sets = {name: of_set[min(number, len(of_set)) - 1] for name, of_set in ordered.items()}
            chosen = tuple(row for row in of_benchmark if row.target_version == sets[row.target])
            current = all(is_current(name, version) for name, version in sets.items())
            if today is not None and current and len(chosen) == len(of_benchmark):
                board = [group for group in today if group.benchmark.partition(" ")[0] == benchmark]
            else:
                board = groups(chosen, evidence, reproduced=reproduced, versions=sets)
            digest = hashlib.sha256("\n".join(sorted(row.run_id for row in chosen)).encode()).hexdigest()
            versions.append(BenchmarkVersion(benchmark, sets, current, chosen, tuple(board), digest))
    return versions


def superseded(rows: Sequence[Row]) -> dict[str, str]:
    """Why a row is superseded, by run id: its set has a newer version, or its cell a row of the method's newer one."""
    reasons = {}
    newest: dict[tuple[object, ...], str] = {}
    for row in rows:
        newest[_cell(row)] = max(newest.get(_cell(row), row.method_version), row.method_version, key=_as_numbers)
    for row in rows:
        if row.benchmark != OWN and not is_current(row.target, row.target_version):
            reasons[row.run_id] = f"{row.target} has version {all_manifests()[row.target].version} now"
        elif _as_numbers(row.method_version) < _as_numbers(newest[_cell(row)]):
            reasons[row.run_id] = f"version {newest[_cell(row)]} of the method has a row of this cell"
    return reasons


def changes(rows: Sequence[Row], versions: Sequence[BenchmarkVersion]) -> list[Change]:
    """New rows, new versions of methods and new versions of benchmarks, the newest first."""
    new = [
        Change(
            min(row.date for row in version.rows),
            version.name,
            version.page,
            f"benchmark:{version.key}",
        )
        for version in versions
    ]
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.date):
        first.setdefault((row.method, row.method_version), row)
    new += [
        Change(
            row.date, f"{method} {version}", f"methods/{method.replace(':', '-')}.html", f"method:{method}:{version}"
        )
        for (method, version), row in first.items()
    ]
    new += [
        Change(row.date, _told(row), f"cells/{row.run_id}.html", f"run:{row.run_id}")
        for row in sorted(rows, key=lambda row: row.run_id)
    ]
    return sorted(new, key=lambda change: change.date, reverse=True)


def _told(row: Row) -> str:
    contaminated = f", {row.contaminated_supports} contaminated" if row.contaminated_supports else ""
    text = f"{row.method} {row.method_version} on {row.target} {row.target_version}, {row.benchmark}, {row.shots} shots"
    return text + contaminated + ("" if row.ranks else ", not ranked")


def _cell(row: Row) -> tuple[object, ...]:
    settings = tuple(sorted((name, str(value)) for name, value in row.config.items()))
    cell = (row.benchmark, row.target, row.membership_digest, row.size_px, row.hold_out, row.protocol)
    return (row.method, row.preset, settings, *cell, row.shots, row.draws, row.seed, row.contaminated_supports)


def _as_numbers(version: str) -> tuple[tuple[int, str], ...]:
    """1.10.0 is newer than 1.9.0; what is no number comes before any."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in version.split("."))
