"""Pictures without patients, to exercise a method with."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from medfsad_bench.method import Images


def phantom_images(count: int, *, size_px: int = 64, seed: int = 0) -> Images:
    """Smooth random pictures in [0, 1], float32 (count, 3, size_px, size_px): enough to exercise a method."""
    rng = np.random.default_rng([seed, count, size_px])
    coarse = torch.from_numpy(rng.random((count, 3, 8, 8), dtype=np.float32))
    return torch.nn.functional.interpolate(coarse, (size_px, size_px), mode="bicubic").clamp(0, 1)


class PhantomSource:
    """Normal images for `pretrain`, two of each group; see `medfsad_bench.method.LabelledSource`.

    Attributes:
        groups: An opaque number per image that its group shares, int64 (n,).
        digest: Stands for the pixels.
    """

    def __init__(self, seed: int, size_px: int, device: torch.device) -> None:
        self._images = phantom_images(16, size_px=size_px, seed=seed).mul(255).round().byte().to(device)
        self._kind = seed, size_px, device
        self.groups = torch.arange(len(self), device=device) // 2
        self.digest = f"phantoms {seed} {size_px}"

    @property
    def anomalies(self) -> "PhantomSource":
        """Pictures of other groups, for methods that declare to know anomalies of other sets."""
        seed, size_px, device = self._kind
        return PhantomSource(seed + 1000, size_px, device)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Int64[Tensor, " b"], /) -> UInt8[Tensor, "b 3 h w"]:
        return self._images[indices]
