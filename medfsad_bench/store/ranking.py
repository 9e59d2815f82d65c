"""Ranks by a hash: which images take part is a rule that anyone can repeat, not luck."""

import hashlib

from medfsad_bench.store.dataset import Dataset


def rank(*parts: str) -> str:
    """SHA-256 of the parts, joined by colons, in hexadecimal digits: the lowest comes first.

    Args:
        parts: The rule's name and version, then what is ranked, for example a set's name and an image's id.

    >>> rank("medfsad/1", "lag", "0001")[:8]
    '81355fe8'
    """
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def best_of_groups(dataset: Dataset, *rule: str) -> dict[str, int]:
    """Row of the best-ranked image of each group of anomalous test images, the best group first.

    Args:
        dataset: A prepared set.
        rule: What goes into the rank before the image's id.
    """
    anomalous = dataset.table.iloc[dataset.anomalous_test]
    images = zip(anomalous["id"].astype(str), anomalous["group"].astype(str), anomalous.index, strict=True)
    first: dict[str, int] = {}
    for _, group, row in sorted((rank(*rule, id_), group, int(row)) for id_, group, row in images):
        first.setdefault(group, row)
    return first
