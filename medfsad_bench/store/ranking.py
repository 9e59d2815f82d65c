"""Ranks by a hash: which images take part is a rule that anyone can repeat, not luck."""

import hashlib


def rank(*parts: str) -> str:
    """SHA-256 of the parts, joined by colons, in hexadecimal digits: the lowest comes first.

    Args:
        parts: The rule's name and version, then what is ranked, for example a set's name and an image's id.

    >>> rank("medfsad/1", "lag", "0001")[:8]
    '81355fe8'
    """
    return hashlib.sha256(":".join(parts).encode()).hexdigest()
