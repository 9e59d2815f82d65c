"""Features of frozen networks, kept by the pixels' digest, so that each image passes once through a network.

They are kept in memory within a budget; those of prepared files on disk too, where there is a store (`feature_store`).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Backbone, Images, ImageSource
from medfsad_bench.runner.blocks import Block, Key, Place, gathered
from medfsad_bench.runner.digests import chosen, digests_of
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.frozen import Features, counted, load_backbone, stage_numbers
from medfsad_bench.runner.images import shown
from medfsad_bench.runner.stored_features import FileImages, StoredFeatures

CACHE_BYTES = 8 << 30
_CHUNK = 8  # images per pass, always padded to it: a convolution's last bits depend on the batch's size
_CHUNK_PX = 8 * 128**2  # of larger images so few that layers stay in a CPU's cache; at least two, to vectorise alike
_CUDA_CHUNK = 64


class FeatureCache:
    """What frozen networks make of images, within one memory budget.

    Images are kept by the digest of their pixels, in the blocks in which they were computed; blocks that were used
    least recently go first. Sources are blocks that stay, so that a training batch is one gather. A source that doesn't
    fit is computed anew, batch by batch. Features of images that a run expects come from the store, if there is one.

    Methods that ask for different stages of one network share its passes, if the stages are announced.

    Attributes:
        images_computed: How many images passed through a backbone; a test counts with it.
    """

    def __init__(
        self, device: torch.device, *, budget_bytes: int = CACHE_BYTES, store: FeatureStore | None = None
    ) -> None:
        self._device = device
        self._stored = StoredFeatures(store, device, self._passes) if store else None
        self._budget = budget_bytes
        self._chunk = _CHUNK if device.type == "cpu" else _CUDA_CHUNK
        self._blocks: OrderedDict[int, Block] = OrderedDict()  # by number; those that may go
        self._sources: dict[tuple[Backbone, str], tuple[Tensor, ...] | list[Place] | None] = {}
        self._placed: dict[Key, Place] = {}
        self._bytes = 0
        self._networks: dict[Backbone, Features] = {}
        self._serving: dict[Backbone, list[Backbone]] = {}  # by network, that is by backbone without stages
        self.images_computed = 0

    def keep_at_most(self, budget_bytes: int) -> None:
        """Keep no more than that from now on."""
        self._budget = budget_bytes
        self._shrink()

    def announce(self, backbones: Iterable[Backbone]) -> None:
        """Say which stages a sweep will ask for, so that one pass serves all of one network."""
        wanted: dict[Backbone, set[int]] = {}
        for backbone in backbones:
            wanted.setdefault(replace(backbone, stages=()), set()).update(stage_numbers(backbone))
        for network, stages in wanted.items():
            self._served(replace(network, stages=tuple(sorted(stages))))

    @contextmanager
    def expecting(
        self,
        set_names: Mapping[str, str],
        images: Callable[[], Sequence[FileImages]],
        on_progress: Callable[[int, int], None],
    ) -> Iterator[None]:
        """Meanwhile, features of these images are taken from the store, or put there, when the first of them is needed.

        Args:
            set_names: Names of the prepared files that take part, by their content digest.
            images: Gives the images.
            on_progress: Told how many of how many images are computed.
        """
        if self._stored is None:
            yield
            return
        gone = self._stored.expect(set_names, images, on_progress)
        self._placed = {key: place for key, place in self._placed.items() if place[0] not in gone}
        self._sources = {
            key: features
            for key, features in self._sources.items()
            if not (isinstance(features, list) and any(block in gone for block, _ in features))
        }
        try:
            yield
        finally:
            self._stored.expect(set_names, list, lambda *_: None)

    def bring(self, backbone: Backbone, content_digest: str) -> None:
        """Take the expected images of a prepared file from the store, before they are asked for by the clock."""
        if self._stored is not None:
            self._take(self._stored.of_file(self._served(counted(backbone)), content_digest))

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of `images`, one per stage; with as many threads the same bits in whatever batch."""
        backbone = counted(backbone)
        served = self._served(backbone)
        features = self._passed(served, images)
        return tuple(features[served.stages.index(stage)].float() for stage in backbone.stages)

    def source_features(
        self,
        backbone: Backbone,
        source: ImageSource,
        indices: Int64[Tensor, " b"],
        stages: Sequence[int] | None = None,
        *,
        on_done: Callable[[int, int], None] = lambda *_: None,
    ) -> tuple[Float[Tensor, "b c fh fw"], ...]:
        """Feature maps of a source's images by index; at the first call for the whole source, if the budget allows."""
        backbone = counted(backbone)
        served = self._served(backbone)
        key = (served, source.digest)
        if key not in self._sources:
            self._sources[key] = self._whole(served, source, on_done)
        wanted = [backbone.stages[position] for position in (range(len(backbone.stages)) if stages is None else stages)]
        whole = self._sources[key]
        if isinstance(whole, list):
            numbers = [served.stages.index(stage) for stage in wanted]
            return tuple(part.float() for part in gathered([whole[row] for row in indices.tolist()], numbers))
        if whole is None:
            return self.features(replace(backbone, stages=tuple(wanted)), source[indices].float() / 255)
        return tuple(whole[served.stages.index(stage)][indices].float() for stage in wanted)

    def cached(
        self, key: Hashable, images: Images, compute: Callable[[Images], Sequence[Tensor]], *, chunk: int | None = None
    ) -> tuple[Tensor, ...]:
        """What `compute` makes of each image, kept by `key` and the pixels' digest; of `chunk` images at a time."""
        keys = [(key, digest) for digest in digests_of(images)]
        places = self._held(keys)
        missing = {image_key: index for index, image_key in enumerate(keys) if image_key not in places}
        order = list(missing)
        size = chunk or self._chunk
        for start in range(0, len(order), size):
            fresh = order[start : start + size]
            parts = _padded(compute, chosen(images, [missing[image_key] for image_key in fresh]), size)
            places |= self._keep(fresh, [part.clone() for part in parts])
        return gathered([places[image_key] for image_key in keys])

    def paired(
        self, key: Hashable, images: Images, others: Float[Tensor, "k 3 h w"], compute: Callable[[Images], Tensor]
    ) -> Shaped[Tensor, "n k *shape"]:
        """What `compute` makes of each image and each of some others, kept by `key` and both digests."""
        rows, columns = digests_of(images), digests_of(others)
        keys = [(key, row + column) for row, column in product(rows, columns)]
        places = self._held(keys)
        missing = {
            column: position
            for position, column in enumerate(columns)
            if any((key, row + column) not in places for row in rows)
        }
        if missing:
            with torch.no_grad():
                fresh = compute(chosen(others, list(missing.values())))
            pairs = [(key, row + column) for row, column in product(rows, missing)]
            places |= self._keep(pairs, [fresh.flatten(0, 1).clone()])
        return gathered([places[pair_key] for pair_key in keys])[0].unflatten(0, (len(rows), len(columns)))

    def _served(self, backbone: Backbone) -> Backbone:
        """What is passed for `backbone`: the first of its network's that has all its stages."""
        served = self._serving.setdefault(replace(backbone, stages=()), [])
        fitting = [candidate for candidate in served if set(backbone.stages) <= set(candidate.stages)]
        if not fitting:
            fitting = [replace(backbone, stages=tuple(sorted(set(backbone.stages))))]  # timm's order
            served += fitting
        return fitting[0]

    def _whole(
        self, backbone: Backbone, source: ImageSource, on_done: Callable[[int, int], None]
    ) -> tuple[Tensor, ...] | list[Place] | None:
        """Features of all images of a source: where they are mapped, or in memory, or None if they don't fit there."""
        stored = source[torch.arange(len(source), device=self._device)]
        keys: list[Key] = [(backbone, digest) for digest in digests_of(stored)]
        if self._stored is not None:
            images = FileImages(source.digest, stored)
            self._take(self._stored.of_images(backbone, images, on_done))
            if self._stored.are_mapped(backbone, images):
                return [self._placed[key] for key in keys]
        whole: tuple[Tensor, ...] = ()
        others = sum(_size(stages) for stages in self._sources.values() if isinstance(stages, tuple))
        for start in range(0, len(source), self._chunk):
            rows = torch.arange(start, min(start + self._chunk, len(source)))
            parts = self._passed(backbone, shown(stored, rows))
            if not whole:
                if others + _size(parts) // len(rows) * len(source) > self._budget:
                    return None
                whole = tuple(part.new_empty((len(source), *part.shape[1:])) for part in parts)
                self._bytes += _size(whole)
            for stage, part in zip(whole, parts, strict=True):
                stage[start : start + len(rows)] = part
            on_done(start + len(rows), len(source))
        self._place(Block(whole, keys))
        self._shrink()
        return whole

    def _held(self, keys: Iterable[Key]) -> dict[Key, tuple[Block, int]]:
        """Where the values are that are at hand, which counts as a use of their blocks."""
        places = {image_key: place for image_key in keys if (place := self._placed.get(image_key))}
        for number in {block.number for block, _ in places.values()} & self._blocks.keys():
            self._blocks.move_to_end(number)
        return places

    def _passed(self, backbone: Backbone, images: Images) -> tuple[Tensor, ...]:
        """All stages of a backbone, each image's once."""
        missing = {digest for digest in digests_of(images) if (backbone, digest) not in self._placed}
        if missing and self._stored is not None:
            self._take(self._stored.holding(backbone, missing))
            missing = {digest for digest in missing if (backbone, digest) not in self._placed}
        self.images_computed += len(missing)
        chunk = self._chunk_of(backbone, images.shape[-1])
        return self.cached(backbone, images, lambda fresh: self._pass(backbone, fresh), chunk=chunk)

    def _passes(
        self, backbone: Backbone, stored: UInt8[Tensor, "n 3 h w"], rows: Sequence[int]
    ) -> Iterator[Sequence[Tensor]]:
        """All stages of a backbone of some stored images, a few at a time."""
        size = self._chunk_of(backbone, stored.shape[-1])
        for positions in torch.tensor(rows).split(size):
            self.images_computed += len(positions)
            yield _padded(lambda fresh: self._pass(backbone, fresh), shown(stored, positions), size)

    def _chunk_of(self, backbone: Backbone, edge_px: int) -> int:
        """How many images pass at a time."""
        if self._device.type != "cpu":
            return self._chunk
        return max(2, min(self._chunk, _CHUNK_PX // (backbone.size_px or edge_px) ** 2))

    def _pass(self, backbone: Backbone, images: Images) -> list[Tensor]:
        if backbone not in self._networks:
            self._networks[backbone] = load_backbone(backbone, self._device)
        try:
            stages: list[Tensor] = self._networks[backbone](images)
        except AssertionError as error:  # timm's way to refuse a size
            raise WeightsError(
                f"Backbone {backbone.name!r} refuses images of {images.shape[-1]} px ({error}). Set size_px to what it "
                "takes, or choose another with --backbone."
            ) from error
        return [stage.half() for stage in stages] if backbone.half else stages

    def _keep(self, keys: Sequence[Key], values: Sequence[Tensor]) -> dict[Key, tuple[Block, int]]:
        """Take in a block, one row per key; returns where they are, even if there is no room for it.

        Raises:
            MethodError: If there are more or fewer rows.
        """
        if wrong := [len(part) for part in values if len(part) != len(keys)]:
            raise MethodError(
                f"What a method computes of images has {wrong[0]} rows for {len(keys)} images or pairs of them. Give "
                "one for each, each of its image or pair alone."
            )
        block = Block(tuple(values), keys)
        self._blocks[block.number] = block
        self._bytes += _size(block.values)
        places = self._place(block)
        self._shrink()
        return places

    def _take(self, blocks: Iterable[Block]) -> None:
        """Take in blocks that lie in files: as they are where networks compute on the CPU, else as copies."""
        for block in blocks:
            if self._device.type == "cpu":
                self._place(block)
            else:
                self._keep(block.keys, [stage.to(self._device) for stage in block.values])

    def _place(self, block: Block) -> dict[Key, Place]:
        places = {key: (block, row) for row, key in enumerate(block.keys)}
        self._placed |= places
        return places

    def _shrink(self) -> None:
        while self._bytes > self._budget and self._blocks:
            _, block = self._blocks.popitem(last=False)
            self._bytes -= _size(block.values)
            for image_key in block.keys:
                if self._placed.get(image_key, (None,))[0] is block:  # and not computed anew since, in other company
                    del self._placed[image_key]


def _size(value: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in value)


def _padded(compute: Callable[[Images], Sequence[Tensor]], images: Images, size: int) -> list[Tensor]:
    """What is computed of a few images, in a batch of `size`."""
    with torch.no_grad():
        parts = compute(chosen(images, [row if row < len(images) else 0 for row in range(size)]))
    return [part[: len(images)] for part in parts]
