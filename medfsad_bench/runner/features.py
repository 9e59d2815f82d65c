"""Frozen feature networks, and their features kept by the pixels' digest, so that each image passes once a backbone."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import count, product

import timm
import torch
from einops import rearrange
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Backbone, Images, ImageSource
from medfsad_bench.runner.blocks import Block, Key, gathered
from medfsad_bench.runner.digests import digests_of
from medfsad_bench.runner.weights import bare_network, load_weights, stage_count, timm_name

CACHE_BYTES = 8 << 30
_CHUNK = 8  # images per pass, always padded to it: a convolution's last bits depend on the batch's size
_CHUNK_PX = (
    8 * 128**2
)  # of larger images so few that layers stay in a CPU's cache, and at least two, which vectorise alike
_CUDA_CHUNK = 64


class Features(nn.Module):
    """A frozen timm network behind its resizing and scaling."""

    def __init__(self, backbone: Backbone, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.size_px = backbone.size_px
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")  # as Swin's are
        mean, std = _scaling(backbone)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Images) -> list[Tensor]:
        """Feature maps (n, c, h, w), one a stage."""
        if self.size_px is not None and images.shape[-2:] != (self.size_px, self.size_px):
            size = (self.size_px, self.size_px)
            images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        stages = self.network((images - self.mean) / self.std)
        return [rearrange(stage, "n h w c -> n c h w") for stage in stages] if self.channels_last else list(stages)


def load_backbone(backbone: Backbone, device: torch.device) -> Features:
    """A frozen network that returns the stages of `backbone`.

    Raises:
        WeightsError: If the network is unknown or its weights can't be had.
    """
    network = bare_network(backbone.name, _numbers(backbone))
    load_weights(network, backbone)
    return Features(backbone, network).to(device)


class FeatureCache:
    """What frozen networks make of images, within one memory budget.

    Images are kept by the digest of their pixels, in the blocks in which they were computed; blocks that were used
    least recently go first. Sources are blocks that stay, so that a training batch is one gather. A source that doesn't
    fit is computed anew, batch by batch.

    Methods that ask for different stages of one network share its passes, if the stages are announced.

    Attributes:
        images_computed: How many images passed through a backbone; a test counts with it.
    """

    def __init__(self, device: torch.device, *, budget_bytes: int = CACHE_BYTES) -> None:
        self._device = device
        self._budget = budget_bytes
        self._chunk = _CHUNK if device.type == "cpu" else _CUDA_CHUNK
        self._blocks: OrderedDict[int, Block] = OrderedDict()  # by number; those that may go
        self._sources: dict[tuple[Backbone, str], tuple[Tensor, ...] | None] = {}
        self._placed: dict[Key, tuple[Block, int]] = {}  # in which block, at which row
        self._numbers = count()
        self._bytes = 0
        self._networks: dict[Backbone, Features] = {}
        self._serving: dict[Backbone, list[Backbone]] = {}  # by network, that is by backbone without stages
        self.images_computed = 0

    def announce(self, backbones: Iterable[Backbone]) -> None:
        """Say which stages a sweep will ask for, so that one pass serves all of one network."""
        wanted: dict[Backbone, set[int]] = {}
        for backbone in backbones:
            wanted.setdefault(replace(backbone, stages=()), set()).update(_numbers(backbone))
        for network, stages in wanted.items():
            self._served(replace(network, stages=tuple(sorted(stages))))

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of `images`, one per stage; with as many threads the same bits in whatever batch."""
        backbone = _counted(backbone)
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
        backbone = _counted(backbone)
        served = self._served(backbone)
        key = (served, source.digest)
        if key not in self._sources:
            self._sources[key] = self._whole(served, source, on_done)
        chosen = [backbone.stages[position] for position in (range(len(backbone.stages)) if stages is None else stages)]
        whole = self._sources[key]
        if whole is None:
            return self.features(replace(backbone, stages=tuple(chosen)), source[indices].float() / 255)
        return tuple(whole[served.stages.index(stage)][indices].float() for stage in chosen)

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
            batch = images[[missing[image_key] for image_key in fresh]]
            with torch.no_grad():
                parts = compute(torch.cat([batch, batch[:1].expand(size - len(batch), -1, -1, -1)]))
            places |= self._keep(fresh, [part[: len(fresh)].clone() for part in parts])
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
                fresh = compute(others[list(missing.values())])
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
    ) -> tuple[Tensor, ...] | None:
        """Features of all images of a source, or None if they don't fit beside those of the other sources."""
        whole: tuple[Tensor, ...] = ()
        keys: list[Key] = []
        others = sum(_size(stages) for stages in self._sources.values() if stages)
        for start in range(0, len(source), self._chunk):
            indices = torch.arange(start, min(start + self._chunk, len(source)), device=self._device)
            images = source[indices].float() / 255
            parts = self._passed(backbone, images)
            if not whole:
                if others + _size(parts) // len(indices) * len(source) > self._budget:
                    return None
                whole = tuple(part.new_empty((len(source), *part.shape[1:])) for part in parts)
                self._bytes += _size(whole)
            for stage, part in zip(whole, parts, strict=True):
                stage[indices] = part
            keys += [(backbone, digest) for digest in digests_of(images)]
            on_done(start + len(indices), len(source))
        block = Block(whole, keys, next(self._numbers))
        self._placed.update((image_key, (block, row)) for row, image_key in enumerate(keys))
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
        chunk = self._chunk
        if self._device.type == "cpu":
            chunk = max(2, min(chunk, _CHUNK_PX // (backbone.size_px or images.shape[-1]) ** 2))
        self.images_computed += sum((backbone, digest) not in self._placed for digest in set(digests_of(images)))
        return self.cached(backbone, images, lambda fresh: self._pass(backbone, fresh), chunk=chunk)

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
        block = Block(tuple(values), keys, next(self._numbers))
        places = {image_key: (block, row) for row, image_key in enumerate(keys)}
        self._placed |= places
        self._blocks[block.number] = block
        self._bytes += _size(block.values)
        self._shrink()
        return places

    def _shrink(self) -> None:
        while self._bytes > self._budget and self._blocks:
            _, block = self._blocks.popitem(last=False)
            self._bytes -= _size(block.values)
            for image_key in block.keys:
                if self._placed.get(image_key, (None,))[0] is block:  # and not computed anew since, in other company
                    del self._placed[image_key]


def _counted(backbone: Backbone) -> Backbone:
    """Stages counted from the first, where some were counted from the last or named as parts of the depth."""
    return replace(backbone, stages=_numbers(backbone))


def _numbers(backbone: Backbone) -> tuple[int, ...]:
    numbers = tuple(stage for stage in backbone.stages if isinstance(stage, int) and stage >= 0)
    if len(numbers) == len(backbone.stages):
        return numbers
    count = stage_count(backbone.name)
    return tuple(_from_first(stage, count) for stage in backbone.stages)


def _from_first(stage: int | float, count: int) -> int:
    if isinstance(stage, float):
        return max(round(stage * count) - 1, 0)
    return stage if stage >= 0 else count + stage


def _size(value: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in value)


def _scaling(backbone: Backbone) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not backbone.normalise:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    config = timm.get_pretrained_cfg(timm_name(backbone.name))
    if config is None:
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return tuple(config.mean), tuple(config.std)
