"""What the sides of a set are made up of: images, groups, and as how many groups of one size they count.

Images of one group aren't independent, so a result is no surer than its groups allow, however many images they hold.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from medfsad_bench.manifest import Manifest, Split, listed_ids

FEWEST_EFFECTIVE_GROUPS = 15  # of each class in the test; a set with fewer is small
SMALL = f"small: a class of the test counts as fewer than {FEWEST_EFFECTIVE_GROUPS} groups of equal size"


@dataclass(frozen=True, slots=True)
class Composition:
    """What one class on one side is made up of.

    Attributes:
        images: Images of the class on the side.
        groups: Groups that they come from.
        largest_group: Images of the group that gives most.
        effective_groups: As how many groups of equal size they count, see `effective_number`.
    """

    images: int
    groups: int
    largest_group: int
    effective_groups: float


def compositions(members: Iterable[tuple[str, bool, str]]) -> dict[str, Composition]:
    """What each class on each side is made up of; a class without an image is absent.

    Args:
        members: Side, whether it is anomalous, and group of every image, in any order.

    Returns:
        By `split_key`, train first, normal before anomalous.

    >>> compositions([("test", False, "a"), ("test", False, "a"), ("test", False, "b")])
    {'test normal': Composition(images=3, groups=2, largest_group=2, effective_groups=1.8)}
    """
    sizes: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    for split, anomalous, group in members:
        sizes[split, bool(anomalous)][group] += 1
    return {
        split_key(*key): Composition(
            by_group.total(), len(by_group), max(by_group.values()), effective_number(by_group.values())
        )
        for key, by_group in sorted(sizes.items(), key=lambda item: (item[0][0] != "train", item[0]))
    }


def table_compositions(table: pd.DataFrame) -> dict[str, Composition]:
    """What the images of a prepared file's table, or of some of its rows, are made up of."""
    return compositions(zip(table["split"], table["label"], table["group"], strict=True))


def listed_compositions(manifest: Manifest, split: Split) -> dict[str, Composition]:
    """What a committed list is made up of; empty without a list, or if the list doesn't tell the classes apart.

    Raises:
        ManifestError: If the list's digest isn't the one in the manifest.
    """
    listed = listed_ids(manifest, split) or []
    if len({row.group for row in listed}) == len(listed):  # one image per group: the counts say all
        counts = split.counts.items() if listed else ()
        return {split_key(*key): Composition(count, count, 1, float(count)) for key, count in counts}
    if any(not row.label for row in listed):
        return {}
    normal = {"normal", *manifest.labels.normal}
    return compositions((row.split, row.label not in normal, row.group) for row in listed)


def effective_number(sizes: Iterable[int]) -> float:
    """The effective number of groups, (sum n)^2 / sum n^2: their count where all are of one size, else fewer.

    Groups of 4, 1 and 1 images: (4 + 1 + 1)^2 / (4^2 + 1^2 + 1^2) = 36 / 18 = 2.

    >>> effective_number([4, 1, 1]), effective_number([5, 5, 5]), effective_number([])
    (2.0, 3.0, 0.0)

    Source: Kish, Survey Sampling, 1965.
    """
    positive = [size for size in sizes if size > 0]
    return sum(positive) ** 2 / sum(size**2 for size in positive) if positive else 0.0


def is_small(made_of: Mapping[str, Composition]) -> bool:
    """Whether a class of the test has fewer than `FEWEST_EFFECTIVE_GROUPS`: then intervals are wide and unsure."""
    return any(
        of_class.effective_groups < FEWEST_EFFECTIVE_GROUPS
        for key, of_class in made_of.items()
        if key.startswith("test ")
    )


def split_key(split: str, anomalous: bool) -> str:
    """A class on a side, in words.

    >>> split_key("test", True)
    'test anomalous'
    """
    return f"{split} {'anomalous' if anomalous else 'normal'}"
