"""Between the store and the cache: features that lie in files as blocks, computed and written first where they lack."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from medfsad_bench.method import Backbone
from medfsad_bench.runner.blocks import Block
from medfsad_bench.runner.digests import digests_of
from medfsad_bench.runner.feature_file import Batch, FeatureFile
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.frozen import facts_of, stage_numbers

Progress = Callable[[int, int], None]  # images computed, of how many
Passes = Callable[[Backbone, UInt8[Tensor, "n 3 h w"], Sequence[int]], Iterator[Sequence[Tensor]]]


@dataclass(frozen=True, slots=True, eq=False)
class FileImages:
    """Images of a prepared file.

    Attributes:
        content_digest: Of the file.
        stored: As they are stored, on the device.
    """

    content_digest: str
    stored: UInt8[Tensor, "n 3 h w"]


class StoredFeatures:
    """What one process has open of a store, for one run at a time."""

    def __init__(self, store: FeatureStore, device: torch.device, passes: Passes) -> None:
        """Nothing is opened yet.

        Args:
            store: The files.
            device: Where networks compute.
            passes: Computes features of some rows of stored images in their order, a few rows at a time.
        """
        self._store = store
        self._device = device
        self._passes = passes
        self._blocks: dict[Block, FeatureFile] = {}
        self._at_hand: dict[Hashable, set[bytes]] = {}  # digests of images by backbone
        self._images: Callable[[], Sequence[FileImages]] = list
        self._expected: list[FileImages] | None = None  # `_images`, once they are asked for
        self._looked_up: set[tuple[Backbone, int]] = set()  # positions in `_expected`
        self._on_progress: Progress = lambda *_: None

    def expect(
        self, set_names: Mapping[str, str], images: Callable[[], Sequence[FileImages]], on_progress: Progress
    ) -> set[Block]:
        """Turn to another run, see `FeatureCache.expecting`; returns blocks of sets that it doesn't name, which go."""
        self._store.set_names |= set_names
        self._images, self._expected, self._on_progress = images, None, on_progress
        self._looked_up.clear()
        files = self._store.close(but=set_names.keys())
        gone = {block for block, file in self._blocks.items() if file in files}
        for block in gone:
            del self._blocks[block]
            for backbone, digest in block.keys:
                self._at_hand[backbone].discard(digest)
        return gone

    def holding(self, backbone: Backbone, digests: Set[bytes]) -> list[Block]:
        """Blocks of expected images, of those that some digests belong to; only those that weren't returned before."""
        return self._looked_up_of(backbone, lambda images: not digests.isdisjoint(digests_of(images.stored)))

    def of_file(self, backbone: Backbone, content_digest: str) -> list[Block]:
        """The same of all expected images of one prepared file."""
        return self._looked_up_of(backbone, lambda images: images.content_digest == content_digest)

    def of_images(self, backbone: Backbone, images: FileImages, on_progress: Progress) -> list[Block]:
        """Blocks of some images, from files or computed into one; only those that weren't returned before."""
        rows = {digest: row for row, digest in enumerate(digests_of(images.stored))}
        facts = facts_of(backbone, self._device)
        blocks = self._opened(backbone, images, facts, rows.keys())
        if rows.keys() <= self._at_hand[backbone]:
            return blocks
        with self._store.sole_writer(facts, images.content_digest) as can_write:
            blocks += self._opened(backbone, images, facts, rows.keys())  # what another process wrote meanwhile
            lacking = {digest: row for digest, row in rows.items() if digest not in self._at_hand[backbone]}
            if can_write and lacking:
                batches = self._computed(backbone, images, lacking, on_progress)
                self._store.write(facts, stage_numbers(backbone), images.content_digest, list(lacking), batches)
                blocks += self._opened(backbone, images, facts, lacking.keys())
        return blocks

    def are_mapped(self, backbone: Backbone, images: FileImages) -> bool:
        """Whether a network's features of some images all lie in open files, mapped and not copied."""
        return self._device.type == "cpu" and self._at_hand.get(backbone, set()).issuperset(digests_of(images.stored))

    def _looked_up_of(self, backbone: Backbone, chosen: Callable[[FileImages], bool]) -> list[Block]:
        if self._expected is None:
            self._expected = list(self._images())
        blocks = []
        for number, images in enumerate(self._expected):
            if (backbone, number) not in self._looked_up and chosen(images):
                self._looked_up.add((backbone, number))
                blocks += self.of_images(backbone, images, self._on_progress)
        return blocks

    def _opened(
        self, backbone: Backbone, images: FileImages, facts: dict[str, Any], digests: Set[bytes]
    ) -> list[Block]:
        """What lies in files and isn't at hand yet."""
        at_hand = self._at_hand.setdefault(backbone, set())
        blocks, wanted = [], stage_numbers(backbone)
        for file in self._store.open(facts, wanted, images.content_digest, digests - at_hand):
            for keys, stages in file.batches:
                values = tuple(_tensor(stages[stage]) for stage in wanted)
                block = Block(values, [(backbone, key) for key in keys])
                self._blocks[block] = file
                at_hand.update(keys)
                blocks.append(block)
        return blocks

    def _computed(
        self, backbone: Backbone, images: FileImages, rows: Mapping[bytes, int], on_progress: Progress
    ) -> Iterator[Batch]:
        digests, done = list(rows), 0
        for stages in self._passes(backbone, images.stored, list(rows.values())):
            count = len(stages[0])
            yield digests[done : done + count], [stage.cpu().numpy() for stage in stages]
            done += count
            on_progress(done, len(digests))


def _tensor(array: pa.FixedShapeTensorArray) -> Tensor:
    """The same memory as a tensor (n, c, h, w); writing to it would end the process."""
    values: Tensor = from_dlpack(array.storage.flatten())
    return values.view(len(array), *array.type.shape)
