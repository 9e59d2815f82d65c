"""What is wrong with a set, all of it at once: findings are collected, not raised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medfsad_bench.curate.duplicates import near_duplicates
from medfsad_bench.curate.load import Loaded
from medfsad_bench.curate.split import Candidate
from medfsad_bench.manifest import Listed

CONSTANT_CONTRAST = 1.0  # grey levels of 255: below it there's nothing to see


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        fault: Its short name; what `--allow` takes if it stops the set.
        where: Image or images.
        what: What was found and what to do.
        stops: Whether the set can't be written unless the user allows it.
    """

    fault: str
    where: str
    what: str
    stops: bool


def quarantine(loaded: Mapping[str, Loaded]) -> dict[str, str]:
    """Images that can't take part, with the reason."""
    bad = {}
    for image_id, item in sorted(loaded.items()):
        if item.problem:
            bad[image_id] = item.problem
        elif item.contrast < CONSTANT_CONTRAST:
            bad[image_id] = f"constant image (standard deviation {item.contrast:.2f} of 255)"
    return bad


def duplicate_findings(
    candidates: Sequence[Candidate], split: Mapping[str, str], loaded: Mapping[str, Loaded]
) -> list[Finding]:
    """Near-duplicates in different groups: across the split they stop the set, within a side they are noted."""
    chosen = [c for c in candidates if c.id in split]
    prints = [item.prints for c in chosen if (item := loaded[c.id]).prints is not None]
    findings = []
    for first, second in near_duplicates(prints):
        a, b = chosen[int(first)], chosen[int(second)]
        if a.group == b.group:
            continue
        across = split[a.id] != split[b.id]
        contradiction = a.anomalous != b.anomalous
        findings.append(
            Finding(
                "near-duplicates",
                f"{a.id} ~ {b.id}",
                f"near-duplicates in two groups ({a.group}, {b.group})"
                + (", on both sides of the split" if across else "")
                + (", with different labels" if contradiction else ""),
                stops=across,
            )
        )
    return findings


def listed_findings(listed: Sequence[Listed], loaded: Mapping[str, Loaded]) -> list[Finding]:
    """Files that aren't the ones that the committed list was made from."""
    return [
        Finding(
            "other-files",
            row.id,
            f"the file's SHA-256 is {loaded[row.id].sha256[:12]}…, the committed list has {row.sha256[:12]}…",
            stops=True,
        )
        for row in listed
        if row.sha256 and row.id in loaded and not loaded[row.id].problem and loaded[row.id].sha256 != row.sha256
    ]
