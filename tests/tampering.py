"""Prepared files that somebody altered, with as much care as a forger can take."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import h5py

from medfsad_bench.store.dataset import read_episodes, read_table
from medfsad_bench.store.integrity import SEAL_BYTES, content_digest, membership_digest, seal_line

Change = Callable[[h5py.File], None]


def altered(path: Path, change: Change, *, digests: bool = False, sealed: bool = False) -> Path:
    """Alter a prepared file in place.

    Args:
        path: Of the file.
        change: What is done to it, open for writing.
        digests: Whether both digests are stated anew.
        sealed: Whether it is sealed anew.
    """
    with h5py.File(path, "r+") as file:
        change(file)
        if digests:
            episodes = [draw.tolist() for draw in read_episodes(file)]
            file.attrs["membership_digest"] = membership_digest(read_table(file), episodes)
            file.attrs["content_digest"] = content_digest(file)
    if sealed:
        content = path.read_bytes()[SEAL_BYTES:]
        path.write_bytes(seal_line(hashlib.sha256(content).hexdigest()) + content)
    return path


def stating(**attributes: object) -> Change:
    """A change of a file's attributes."""

    def change(file: h5py.File) -> None:
        file.attrs.update(attributes)

    return change
