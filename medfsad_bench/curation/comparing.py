"""Fingerprints compared on a cluster: they are gathered in one file that all nodes see, pairs of blocks are tasks."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medfsad_bench.curation.duplicates import Block, Details, Pairs, correlated
from medfsad_bench.curation.staging import writing
from medfsad_bench.curation.workers import map_on_cluster


@dataclass(frozen=True, slots=True)
class OnCluster:
    """A `duplicates.Compare` on the nodes of the Ray cluster that this process has joined.

    Attributes:
        folder: Lies on a file system that all nodes share, and is there.
    """

    folder: Path

    def __call__(
        self, details: Details, others: Details, blocks: Sequence[Block], min_correlation: float
    ) -> Iterable[Pairs]:
        """Pairs of each block, with the bits of one process on the same kind of processor.

        Raises:
            CurationError: If the folder takes no files, or a worker is lost again and again.
        """
        if not blocks:
            return []
        with writing(self.folder), tempfile.TemporaryDirectory(dir=self.folder) as name:
            paths = Path(name, "details.npy"), Path(name, "others.npy")
            for path, values in zip(paths, (details, others), strict=True):
                np.save(path, values)
            return list(map_on_cluster(partial(_stored, paths=paths, min_correlation=min_correlation), blocks))


def _stored(block: Block, paths: tuple[Path, Path], min_correlation: float) -> Pairs:
    details, others = (np.load(path, mmap_mode="r") for path in paths)
    return correlated(block, details, others, min_correlation)
