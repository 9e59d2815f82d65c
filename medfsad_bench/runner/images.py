"""From stored pixels to what a method sees: the one place where images become tensors on the run's device."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from medfsad_bench.method import Images
from medfsad_bench.store import Dataset


def shown_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> Images:
    """Images of a prepared file on the device, as a method sees them: in [0, 1]."""
    return stored_images(dataset, rows, device).float() / 255


def stored_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> UInt8[Tensor, "n 3 h w"]:
    """Images of a prepared file on the device, as they are stored."""
    return torch.from_numpy(dataset.images(rows)).permute(0, 3, 1, 2).contiguous().to(device)
