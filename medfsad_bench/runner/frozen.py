"""Frozen feature networks behind their resizing and scaling, and all that the bits of their features depend on."""

import functools
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from medfsad_bench.method import Backbone, Images
from medfsad_bench.runner.weights import bare_network, load_weights, stage_count, timm_name, weights_digest

_RULE = "1"  # rises when what is done before, in or after a pass changes a bit of the features


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
        """Feature maps (n, c, h, w), one per stage."""
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
    network = bare_network(backbone.name, stage_numbers(backbone))
    load_weights(network, backbone)
    return Features(backbone, network).to(device)


def counted(backbone: Backbone) -> Backbone:
    """Stages counted from the first, where some were counted from the last or named as parts of the depth."""
    return replace(backbone, stages=stage_numbers(backbone))


def stage_numbers(backbone: Backbone) -> tuple[int, ...]:
    """Its stages counted from the first."""
    numbers = tuple(stage for stage in backbone.stages if isinstance(stage, int) and stage >= 0)
    if len(numbers) == len(backbone.stages):
        return numbers
    count = stage_count(backbone.name)
    return tuple(_from_first(stage, count) for stage in backbone.stages)


def _from_first(stage: int | float, count: int) -> int:
    if isinstance(stage, float):
        return max(round(stage * count) - 1, 0)
    return stage if stage >= 0 else count + stage


def facts_of(backbone: Backbone, device: torch.device) -> dict[str, Any]:
    """All that the bits of a network's features depend on beside the image and the stage, as JSON takes it.

    Another kind of processor, number of threads or release of torch moves last bits, so these belong to it.
    """
    mean, std = _scaling(backbone)
    return {
        "rule": _RULE,
        "network": backbone.name,
        "weights": _digest(backbone.name, backbone.weights),
        "size_px": backbone.size_px,
        "mean": list(mean),
        "std": list(std),
        "kept_as": "float16" if backbone.half else "float32",
        **_arithmetic(device),
    }


def _scaling(backbone: Backbone) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not backbone.normalise:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    import timm

    config = timm.get_pretrained_cfg(timm_name(backbone.name))
    if config is None:
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return tuple(config.mean), tuple(config.std)


def _arithmetic(device: torch.device) -> Mapping[str, Any]:
    """Who computes, and how exactly."""
    on_cpu = device.type == "cpu"
    return {
        "device": _processor() if on_cpu else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads() if on_cpu else 0,
        "precision": f"{torch.get_float32_matmul_precision()}{', TF32' if torch.backends.cudnn.allow_tf32 else ''}",
        "flushes_denormals": not float(torch.tensor(1e-39) * 1),
        "torch": torch.__version__,
        "timm": version("timm"),
    }


@functools.cache
def _processor() -> str:
    """Its model where the system tells, and the instructions that torch uses of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


@functools.cache
def _digest(name: str, weights: str | None) -> str:
    return weights_digest(Backbone(name, weights=weights))
