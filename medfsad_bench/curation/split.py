"""Membership: which images take part, on which side, and which supports are drawn. A rule, not luck.

rank(image) = SHA-256("medfsad/1:" + set + ":" + id); a group's rank is its members' minimum. Test first: groups are
walked by rank, and one that has images of a class still short goes to test, keeping its best-ranked images up to the
missing counts. Then train, normals only, from the groups that are left. What remains of a taken group is in no split.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from medfsad_bench.manifest import Split

MAX_EPISODE = 64  # support images kept per draw: K shots are the first K


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may take part.

    Attributes:
        id: The image.
        group: Patient, slide or eye pair, joined with near-duplicates.
        anomalous: Its label.
        side: Where the download fixes the split, else empty.
    """

    id: str
    group: str
    anomalous: bool
    side: str = ""


def rank(*parts: str) -> str:
    """The position of a thing in the benchmark's fixed random order, as hex digits.

    >>> rank("rsna", "a") < rank("rsna", "b")
    False
    """
    return hashlib.sha256(":".join(("medfsad/1", *parts)).encode()).hexdigest()


def choose(name: str, candidates: Sequence[Candidate], counts: Mapping[tuple[str, bool], int]) -> dict[str, str]:
    """Apply the rule.

    Args:
        name: The data set's name; part of every rank.
        candidates: In any order.
        counts: Images wanted by (split, anomalous).

    Returns:
        Split by image id. Where there are too few candidates, what there is.
    """
    ranked = sorted(candidates, key=lambda c: rank(name, c.id))
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in ranked:  # best-ranked member first, and groups in the order of their best
        groups[candidate.group].append(candidate)
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for split in ("test", "train"):
        missing = {label: count for (side, label), count in counts.items() if side == split}
        for group, members in groups.items():
            if group in taken or not any(missing.values()):
                continue
            picked = _pick(members, missing, split)
            if picked:
                taken.add(group)
                chosen.update(dict.fromkeys(picked, split))
    return chosen


def chosen_counts(candidates: Iterable[Candidate], chosen: Mapping[str, str]) -> dict[tuple[str, bool], int]:
    """Images by (split, anomalous) in a choice."""
    counts: dict[tuple[str, bool], int] = defaultdict(int)
    for candidate in candidates:
        if candidate.id in chosen:
            counts[chosen[candidate.id], candidate.anomalous] += 1
    return dict(counts)


def choose_smaller(
    name: str, candidates: Sequence[Candidate], split: Split
) -> tuple[dict[str, str], dict[tuple[str, bool], int]]:
    """Scale the counts down, all by one factor, to the largest split that the candidates can fill.

    Returns:
        The choice and the counts it fills; both empty if not even one image per class can be had.
    """
    wanted = split.counts
    normal = sum(not c.anomalous for c in candidates)
    largest = min(
        Fraction(normal, split.train + split.test_normal), Fraction(len(candidates) - normal, split.test_anomalous)
    )
    for percent in range(100, 0, -1):  # less than the largest where groups have to stay whole
        counts = {key: max(1, int(count * largest * percent / 100)) for key, count in wanted.items()}
        chosen = choose(name, candidates, counts)
        if chosen_counts(candidates, chosen) == counts:
            return chosen, counts
    return {}, {}


def draw_supports(name: str, train: Sequence[Candidate], *, draws: int) -> list[list[str]]:
    """Support images of every draw: nested in K, one image per group.

    Args:
        name: The data set's name.
        train: Normal training images.
        draws: How many draws.

    Returns:
        Per draw up to `MAX_EPISODE` ids, no two of one group; K shots are the first K.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for candidate in train:
        groups[candidate.group].append(candidate.id)

    def drawn(draw: int) -> list[str]:
        order = sorted(groups, key=lambda group: rank(name, f"draw{draw:02d}", "group", group))
        return [min(groups[group], key=lambda id_: rank(name, f"draw{draw:02d}", id_)) for group in order[:MAX_EPISODE]]

    return [drawn(draw) for draw in range(draws)]


def split_key(split: str, anomalous: bool) -> str:
    """A class on a side, in words.

    >>> split_key("test", True)
    'test anomalous'
    """
    return f"{split} {'anomalous' if anomalous else 'normal'}"


def _pick(members: list[Candidate], missing: dict[bool, int], split: str) -> list[str]:
    picked = []
    for member in members:
        if member.side in ("", split) and missing.get(member.anomalous, 0) > 0:
            missing[member.anomalous] -= 1
            picked.append(member.id)
    return picked
