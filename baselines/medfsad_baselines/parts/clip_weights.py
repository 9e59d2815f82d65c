"""Where CLIP's weights come from: the hub's cache, a local file, or, only if it is named, nowhere (`random:`)."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from medfsad_bench.errors import WeightsError

RANDOM, TINY, EXAMPLE = "random:", "tiny", "ViT-B-16-plus-240/laion400m_e31"
SCALING = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # of OpenAI's images
_TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 48, "head_width": 16, "layers": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


Scaling = tuple[Sequence[float], Sequence[float]]


@cache
def loaded_network(backbone: str, weights: str | None) -> tuple[Any, Scaling]:
    """The network of open_clip, and mean and standard deviation of the images it was trained with.

    Raises:
        WeightsError: If open_clip isn't installed, the network is unknown, or its weights can't be had or don't fit.
    """
    if find_spec("open_clip") is None:
        raise WeightsError(
            f"CLIP {backbone!r} is built by the package open_clip_torch, which isn't installed. Expected the extra: "
            "pip install 'medfsad[clip]'."
        )
    if backbone.startswith(RANDOM):
        if weights is not None:
            raise WeightsError(
                f"--backbone {backbone!r} and --weights {weights} contradict each other. Expected the architecture "
                f"alone beside a file: --backbone {backbone.removeprefix(RANDOM)}."
            )
        architecture = _architecture(backbone.removeprefix(RANDOM))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _bare(architecture), SCALING
    from open_clip import get_pretrained_cfg, load_checkpoint

    name, _, tag = backbone.partition("/")
    architecture, trained = _architecture(name), get_pretrained_cfg(name, tag) or {}
    if trained.get("quick_gelu", False) != architecture.get("quick_gelu", False) and trained:
        raise WeightsError(
            f"--backbone {backbone!r}: the weights {tag!r} were trained with another activation than {name} has. "
            f"Expected {name.removesuffix('-quickgelu')}{'-quickgelu' if trained.get('quick_gelu') else ''}/{tag}."
        )
    path = _from_hub(backbone, trained) if weights is None else Path(weights)
    if not path.is_file():
        raise WeightsError(f"--weights {path} doesn't exist. Expected weights of the CLIP {name}. {_ways(trained)}")
    network = _bare(architecture)
    try:
        load_checkpoint(network, str(path), weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} can't be loaded as weights of the CLIP {name} ({_first_line(error)}). "
            f"Expected a plain state dict of it, safetensors or .pt. {_ways(trained)}"
        ) from error
    return network, (trained.get("mean") or SCALING[0], trained.get("std") or SCALING[1])


def _architecture(name: str) -> dict[str, Any]:
    """Its parts, if they are a vision transformer with a class token and a text tower of CLIP's own."""
    from open_clip import get_model_config

    architecture = _TINY_CONFIG if name == TINY else get_model_config(name) or {}
    vision, text = architecture.get("vision_cfg", {}), architecture.get("text_cfg", {})
    plain = isinstance(vision.get("layers"), int) and vision.keys().isdisjoint({"attentional_pool", "pool_type"})
    own = text.keys() <= {"context_length", "vocab_size", "width", "heads", "layers"}
    if not plain or not own or not architecture.keys() <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}:
        raise WeightsError(
            f"--backbone {name!r} is no CLIP with a plain vision transformer that open_clip knows. Expected one, as in "
            f"{EXAMPLE}, or {RANDOM}{TINY} for a toy without weights."
        )
    return architecture


def _bare(architecture: dict[str, Any]) -> Any:
    from open_clip import CLIP

    return CLIP(**architecture)


def _from_hub(backbone: str, trained: dict[str, Any]) -> Path:
    from open_clip import download_pretrained

    if not trained:
        raise WeightsError(
            f"--backbone {backbone!r} names no weights that open_clip knows. Expected architecture/tag, as in "
            f"{EXAMPLE}, or --weights FILE beside the architecture."
        )
    try:
        return Path(download_pretrained(trained))
    except Exception as error:
        raise WeightsError(
            f"Weights of the CLIP {backbone!r} are not in the hub's cache and can't be fetched "
            f"({_first_line(error)}). {_ways(trained)}"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else 'no reason'}"


def _ways(trained: dict[str, Any]) -> str:
    where = str(trained.get("hf_hub") or trained.get("url") or "it").rstrip("/")
    return (
        f"There are two ways: fetch the weights of {where} on a machine with network access and name the file "
        f"with --weights FILE, or fill the hub's cache there and copy it. --backbone {RANDOM}{TINY} runs without "
        "weights, and means nothing."
    )


@cache
def network_digest(backbone: str, weights: str | None) -> str:
    """SHA-256 over names and values of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded_network(backbone, weights)[0].state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
