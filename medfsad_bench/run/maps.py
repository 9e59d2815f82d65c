"""What the runner does to a method's anomaly maps: enlarge, smooth each by itself, pool."""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

SIGMA_PER_128_PX = 4.0  # as in the reference implementation at 128 px
TOP_FRACTION = 0.01


def input_size_maps(maps: Float[Tensor, "n mh mw"], size_px: int) -> Float32[np.ndarray, "n s s"]:
    """Bring maps to the input size (bilinear)."""
    if maps.shape[1:] != (size_px, size_px):
        maps = torch.nn.functional.interpolate(maps[:, None].float(), (size_px, size_px), mode="bilinear")[:, 0]
    return maps.float().cpu().numpy()


def smooth_each(maps: Float32[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n s s"]:
    """Gaussian smoothing of every map by itself, σ = 4 px per 128 px; never across the images."""
    from scipy.ndimage import gaussian_filter

    sigma_px = SIGMA_PER_128_PX * maps.shape[-1] / 128
    return np.stack([gaussian_filter(one, sigma_px) for one in maps])


def pooled(maps: Float32[np.ndarray, "n s s"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Image scores of maps: maximum (the score), mean, and mean of the highest 1 % of pixels."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    count = max(1, round(TOP_FRACTION * flat.shape[1]))
    top = np.partition(flat, -count, axis=1)[:, -count:]
    return {"score": flat.max(1), "score_mean": flat.mean(1), "score_top1": top.mean(1)}


def enlarged(one: Float32[np.ndarray, "s s"], height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """A map at the truth's size (bilinear): the map is enlarged, the mask never shrunk."""
    if one.shape == (height, width):
        return one
    tensor = torch.from_numpy(one)[None, None]
    return torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear")[0, 0].numpy()
