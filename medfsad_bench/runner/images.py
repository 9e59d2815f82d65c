"""From stored pixels to what a method sees: the one place where images become tensors on the run's device."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from medfsad_bench.method import Images
from medfsad_bench.runner.digests import inherit
from medfsad_bench.store import Dataset


def shown_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> Images:
    """Images of a prepared file on the device, as a method sees them: in [0, 1]."""
    return shown(stored_images(dataset, rows, device), torch.arange(len(rows)))


def stored_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> UInt8[Tensor, "n 3 h w"]:
    """Images of a prepared file on the device, as they are stored; they bring their digests."""
    pixels = np.ascontiguousarray(dataset.images(rows).transpose(0, 3, 1, 2))
    images = torch.from_numpy(pixels).to(device)
    inherit(images, pixels)
    return images


def shown(stored: UInt8[Tensor, "stored 3 h w"], positions: Int64[Tensor, " m"]) -> Images:
    """Some of the stored images, as a method sees them; they bring their digests.

    Args:
        stored: On the device, from `stored_images`.
        positions: Of those to show, on the CPU.
    """
    images = stored[positions.to(stored.device)].float().div_(255)  # in place: large tensors cost most by being new
    inherit(images, stored, positions.tolist())
    return images
