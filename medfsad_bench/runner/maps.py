"""What the runner does to a method's anomaly maps: enlarge, smooth each by itself, pool.

Enlarging (bilinear) and smoothing (Gaussian, mirrored at the rim) are linear and work along each axis by itself. Both
together are one matrix an axis, and a batch of maps is two matrix products, on whatever device it lies.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

SIGMA_PER_128_PX = 4.0  # as in the reference implementation at 128 px
TOP_FRACTION = 0.01


def smooth_maps(maps: Float[Tensor, "n mh mw"], size_px: int) -> Float32[Tensor, "n s s"]:
    """Maps at the input size (bilinear), each smoothed by itself with σ = 4 px per 128 px; never across the images.

    The same as `torch.nn.functional.interpolate` and then `scipy.ndimage.gaussian_filter` of each map, up to rounding.

    Args:
        maps: As the method gave them, on any device.
        size_px: Edge of the images that the method was shown.
    """
    height, width = maps.shape[1:]
    rows = _axis(height, size_px).to(maps.device)
    columns = rows if height == width else _axis(width, size_px).to(maps.device)
    return torch.matmul(torch.matmul(rows, maps.float()), columns.T)


def pooled(maps: Float32[np.ndarray, "n s s"]) -> dict[str, Float64[np.ndarray, " n"]]:
    """Image scores of maps: maximum (the score), mean, and mean of the highest 1 % of pixels."""
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(TOP_FRACTION * flat.shape[1]))
    top = np.partition(flat, -count, axis=1)[:, -count:]
    mean, top_mean = (part.mean(1, dtype=np.float64) for part in (flat, top))
    return {"score": flat.max(1).astype(np.float64), "score_mean": mean, "score_top1": top_mean}


def enlarged(anomaly_map: Float32[np.ndarray, "s s"], height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """A map at the truth's size (bilinear): the map is enlarged, the mask never shrunk."""
    if anomaly_map.shape == (height, width):
        return anomaly_map
    tensor = torch.from_numpy(anomaly_map)[None, None]
    return torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear")[0, 0].numpy()


@lru_cache(maxsize=16)
def _axis(edge: int, size_px: int) -> Float32[Tensor, "s e"]:
    """Enlarging and smoothing along one axis: what each of the `edge` values adds to each of the `size_px`."""
    from scipy.ndimage import gaussian_filter1d

    each = torch.eye(edge, dtype=torch.float64)[:, None]  # one impulse a row
    if edge != size_px:
        each = torch.nn.functional.interpolate(each, size_px, mode="linear", align_corners=False)
    smooth = gaussian_filter1d(each[:, 0].numpy(), SIGMA_PER_128_PX * size_px / 128, axis=1)
    return torch.from_numpy(np.ascontiguousarray(smooth.T, np.float32))
