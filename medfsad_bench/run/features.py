"""Frozen feature networks, and their features kept by the pixels' digest, so that each image passes once a backbone."""

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfsad_bench.method import Backbone, Images
from medfsad_bench.run.weights import bare_network, load_weights, timm_name

_CHUNK = 8  # images a pass, always padded to it: a convolution's last bits hang on the batch's size


class Features(nn.Module):
    """A frozen timm network behind its resizing and scaling."""

    def __init__(self, backbone: Backbone, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.stages = backbone.stages
        self.size_px = backbone.size_px
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
        return list(self.network((images - self.mean) / self.std))


def load_backbone(backbone: Backbone, device: torch.device) -> Features:
    """A frozen network that returns the stages of `backbone`.

    Raises:
        WeightsError: If the network is unknown or its weights can't be had.
    """
    network = bare_network(backbone.name, backbone.stages)
    load_weights(network, backbone)
    return Features(backbone, network).to(device)


class FeatureCache:
    """Features of images by the digest of their pixels, within a memory budget (least recently used go first).

    Methods that ask for different stages of one network share its passes: a pass returns every stage that was asked for
    or announced so far.

    Attributes:
        images_computed: How many images passed through a network; a test counts with it.
    """

    def __init__(self, device: torch.device, *, budget_bytes: int = 4 << 30) -> None:
        self._device = device
        self._budget = budget_bytes
        self._kept: OrderedDict[tuple[Backbone, bytes], dict[int, Tensor]] = OrderedDict()
        self._bytes = 0
        self._stages: dict[Backbone, tuple[int, ...]] = {}  # by network, that is by backbone without stages
        self._networks: dict[Backbone, Features] = {}
        self.images_computed = 0

    def announce(self, backbones: Iterable[Backbone]) -> None:
        """Say which stages a sweep will ask for, so that its first pass serves all."""
        for backbone in backbones:
            network = dataclasses.replace(backbone, stages=())
            self._stages[network] = tuple(sorted({*self._stages.get(network, ()), *backbone.stages}))

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of `images`, one tensor a stage; the same bits whatever batch an image comes in."""
        self.announce([backbone])
        network = dataclasses.replace(backbone, stages=())
        keys = [(network, _digest(image)) for image in images]
        found = {key: self._kept[key] for key in keys if set(backbone.stages) <= self._kept.get(key, {}).keys()}
        missing = {key: index for index, key in enumerate(keys) if key not in found}
        order = list(missing)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            for key, value in zip(chunk, self._compute(network, images[[missing[k] for k in chunk]]), strict=True):
                found[key] = value
                self._keep(key, value)
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
        return tuple(torch.stack([found[key][stage] for key in keys]) for stage in backbone.stages)

    def _compute(self, network: Backbone, images: Images) -> list[dict[int, Tensor]]:
        wanted = self._stages[network]
        if network not in self._networks or self._networks[network].stages != wanted:
            self._networks[network] = load_backbone(dataclasses.replace(network, stages=wanted), self._device)
        self.images_computed += len(images)
        padded = torch.cat([images, images[:1].expand(_CHUNK - len(images), -1, -1, -1)])
        with torch.no_grad():
            stages = self._networks[network](padded)
        return [
            {number: stage[index].clone() for number, stage in zip(wanted, stages, strict=True)}
            for index in range(len(images))
        ]

    def _keep(self, key: tuple[Backbone, bytes], value: dict[int, Tensor]) -> None:
        self._bytes += _size(value) - _size(self._kept.pop(key, {}))
        self._kept[key] = value
        while self._bytes > self._budget and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().cpu().numpy().tobytes(), digest_size=16).digest()


def _size(value: Mapping[int, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in value.values())


def _scaling(backbone: Backbone) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not backbone.normalise:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    config = timm.get_pretrained_cfg(timm_name(backbone.name))
    if config is None:
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return tuple(config.mean), tuple(config.std)
