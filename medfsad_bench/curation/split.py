"""Membership: which images take part, on which side, and which supports are drawn. A rule, not luck.

rank(image) = SHA-256("medfsad/1:" + set + ":" + id). A group's rank is that of the id that comes first by name among
its members, which says nothing about its size.

1. Groups are dealt to the sides in the order of their rank, each to the side that is least filled for what it needs. A
   class's fill: all its images in the groups dealt to the side so far, over the count wanted; a side's fill: the least
   fill of the classes to which the group could add. Ties go to test, as do groups without a normal image. Where the
   source fixes a side, that side; where it puts one group on both, test, with the images that it has there.
2. A group whose dealing would put the counts out of reach goes to the other side.
3. Each side takes the best-ranked image that it can use from each of its groups, in the order of the groups' rank, then
   a second from each, and so on, until its counts are reached. What remains is in no split.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
from jaxtyping import Int

from medfsad_bench.manifest import Split
from medfsad_bench.store.ranking import rank

_RULE = "medfsad/1"  # what is ranked in the name of the membership rule, whatever its version
MAX_EPISODE = 64  # support images kept per draw: K shots are the first K


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may take part.

    Attributes:
        id: The image.
        group: Patient, slide or eye pair, joined with near-duplicates.
        anomalous: Its label.
        side: Where the source fixes the split, else empty.
    """

    id: str
    group: str
    anomalous: bool
    side: str = ""


def choose(name: str, candidates: Sequence[Candidate], counts: Mapping[tuple[str, bool], int]) -> dict[str, str]:
    """Apply the rule.

    Args:
        name: The data set's name; part of every rank.
        candidates: In any order.
        counts: Images wanted by (split, anomalous).

    Returns:
        Split by image id. Where the source holds too few, what there is.
    """
    groups = _ranked_groups(name, candidates)
    sides = _deal([_gains(members, counts) for members in groups], counts)
    chosen: dict[str, str] = {}
    for split in ("test", "train"):
        dealt = [members for members, side in zip(groups, sides, strict=True) if side == split]
        usable = [[member for member in members if member.side in ("", split)] for members in dealt]
        missing = {label: count for (side, label), count in counts.items() if side == split}
        chosen |= dict.fromkeys(_take_in_turns(usable, missing), split)
    return chosen


def chosen_counts(candidates: Iterable[Candidate], chosen: Mapping[str, str]) -> dict[tuple[str, bool], int]:
    """Images by (split, anomalous) in a choice."""
    return dict(Counter((chosen[c.id], c.anomalous) for c in candidates if c.id in chosen))


def choose_smaller(
    name: str, candidates: Sequence[Candidate], split: Split
) -> tuple[dict[str, str], dict[tuple[str, bool], int]]:
    """Scale the counts down, all by one factor, to the largest split that the candidates can fill.

    Returns:
        The choice and the counts it fills; both empty if not even one image of each class can be had.
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
        order = sorted(groups, key=lambda group: rank(_RULE, name, f"draw{draw:02d}", "group", group))
        return [
            min(groups[group], key=lambda id_: rank(_RULE, name, f"draw{draw:02d}", id_))
            for group in order[:MAX_EPISODE]
        ]

    return [drawn(draw) for draw in range(draws)]


def _ranked_groups(name: str, candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Groups in the order of their rank, each with its best-ranked member first."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: rank(_RULE, name, c.id)):
        groups[candidate.group].append(candidate)
    return sorted(groups.values(), key=lambda members: rank(_RULE, name, min(member.id for member in members)))


_Counts = Mapping[tuple[str, bool], int]  # images by (side, anomalous)
_Gains = dict[str, tuple[int, int]]  # normal and anomalous images of a group, by side that it may go to, test first


def _gains(members: Sequence[Candidate], counts: _Counts) -> _Gains:
    fixed = {member.side for member in members} - {""}
    sides = ("test", "train") if not fixed else ("test",) if "test" in fixed else ("train",)
    gains = {}
    for side in sides:
        labels = [member.anomalous for member in members if member.side in ("", side)]
        gains[side] = labels.count(False), labels.count(True)
    useful = {side: gain for side, gain in gains.items() if _classes(side, gain, counts)}
    return useful or {sides[0]: (0, 0)}


def _classes(side: str, gain: tuple[int, int], counts: _Counts) -> list[bool]:
    """The classes to which a group could add on a side."""
    return [label for label in (False, True) if gain[label] and counts.get((side, label), 0)]


def _deal(groups: Sequence[_Gains], counts: _Counts) -> list[str]:
    """The side of each group, given in the order of rank: by fill, and where that misses the counts, within reach."""
    reach = _Reach.of(groups, counts)
    by_fill, given = _deal_within(reach, [], groups, counts)
    free = [gains["test"] for gains in groups if len(gains) == 2]
    for undealt, lost in enumerate(_least_lost(free)):
        if reach.holds(lost, *given[len(free) - undealt]):  # dealing by fill is right up to here
            lookahead = list(islice(_least_lost(free), undealt))
            return _deal_within(reach, lookahead, groups, counts)[0] if lookahead else by_fill
    return by_fill


@dataclass(frozen=True, slots=True)
class _Reach:
    """What train may be given of the groups that could go to either side, so that no count is missed.

    Attributes:
        fewest_normal: Normal images that train needs of them.
        most_normal: Normal images of them that test can do without.
        most_anomalous: Anomalous images of them that test can do without.
    """

    fewest_normal: int
    most_normal: int
    most_anomalous: int

    @staticmethod
    def of(groups: Sequence[_Gains], counts: _Counts) -> "_Reach":
        in_test = [gains["test"] for gains in groups if "test" in gains]
        return _Reach(
            counts.get(("train", False), 0) - sum(gains["train"][False] for gains in groups if "test" not in gains),
            sum(gain[False] for gain in in_test) - counts.get(("test", False), 0),
            sum(gain[True] for gain in in_test) - counts.get(("test", True), 0),
        )

    def holds(self, least_lost: Int[np.ndarray, " _"], normal: int, anomalous: int) -> bool:
        """Whether the counts can be reached once train was given so many images, with what is undealt."""
        fewest, most = max(self.fewest_normal - normal, 0), max(self.most_normal - normal + 1, 0)
        return bool(least_lost[fewest:most].min(initial=_NEVER) + anomalous <= self.most_anomalous)


_NEVER = 2**30  # more images than any set has


def _least_lost(free: Sequence[tuple[int, int]]) -> Iterator[Int[np.ndarray, " _"]]:
    """Of the last 0, 1, 2, ... groups: the fewest anomalous images that go to train with each number of normal ones."""
    lost = np.zeros(1, np.int32)
    yield lost
    for normal, anomalous in reversed(free):
        never = np.full(normal, _NEVER, np.int32)
        lost = np.minimum(np.concatenate([lost, never]), np.concatenate([never, lost + np.int32(anomalous)]))
        yield lost


def _deal_within(
    reach: _Reach, lookahead: Sequence[Int[np.ndarray, " _"]], groups: Sequence[_Gains], counts: _Counts
) -> tuple[list[str], list[tuple[int, int]]]:
    """Deal by fill, within reach as far as `lookahead` (of `_least_lost`) tells it.

    Returns:
        The sides, and the normal and anomalous images that train was given after each group that could go to either.
    """
    filled = {(side, label): 0 for side in ("test", "train") for label in (False, True)}
    sides, given = [], [(0, 0)]
    undealt = sum(len(gains) == 2 for gains in groups)

    def fill(side: str, gain: tuple[int, int]) -> float:
        return min((filled[side, label] / counts[side, label] for label in _classes(side, gain, counts)), default=0)

    for gains in groups:
        side, *other = sorted(gains, key=lambda side: fill(side, gains[side]))  # a tie stays as it is, test first
        if other:
            undealt -= 1
            normal, anomalous = gains["test"]
            after = {"test": given[-1], "train": (given[-1][0] + normal, given[-1][1] + anomalous)}
            if undealt < len(lookahead) and not reach.holds(lookahead[undealt], *after[side]):
                side = other[0]
            given.append(after[side])
        sides.append(side)
        for label in (False, True):
            filled[side, label] += gains[side][label]
    return sides, given


def _take_in_turns(groups: Sequence[Sequence[Candidate]], missing: dict[bool, int]) -> list[str]:
    """Ids of the first usable member of each group, then of the second of each, and so on, up to the missing counts."""
    taken = []
    queues = [iter(members) for members in groups]
    while queues:
        waiting = []
        for queue in queues:
            member = next((member for member in queue if missing.get(member.anomalous, 0) > 0), None)
            if member is not None:
                missing[member.anomalous] -= 1
                taken.append(member.id)
                waiting.append(queue)
        queues = waiting
    return taken
