"""What images are known by: a digest of their pixels, the same for an image as it is stored and as a method sees it.

Images of a prepared file are hashed once, on the host, when they are read; the tensors that are made of them have their
digests (`inherit`), so that none is brought back from the device. Only a tensor that somebody else made is.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_remembered: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor → its version then, and a digest per image


def inherit(
    images: Shaped[Tensor, "m c h w"],
    origin: Shaped[Tensor, "n c h w"] | UInt8[np.ndarray, "n c h w"],
    positions: Int64[Tensor, " m"] | None = None,
) -> None:
    """Let images have the digests of those that they are made of, so that they needn't be brought back and hashed.

    Args:
        images: On any device, as they are stored or as a method sees them.
        origin: What they were made of.
        positions: Which of these, on the CPU; None for all in their order.
    """
    digests = digests_of(origin)
    chosen = digests if positions is None else [digests[position] for position in positions.tolist()]
    _remembered[images] = (images._version, chosen)


def digests_of(images: Shaped[Tensor, "n c h w"] | UInt8[np.ndarray, "n c h w"]) -> list[bytes]:
    """One per image; those of a tensor are made once for as long as it lives and isn't changed.

    It is that of the stored pixels where an image is what `float() / 255` makes of such; else of what it is.
    """
    if isinstance(images, np.ndarray):
        return [hashlib.sha256(image.tobytes()).digest() for image in images]
    version, digests = _remembered.get(images, (-1, []))
    if version != images._version:
        stored = images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).byte()
        digests = digests_of(stored.cpu().numpy())
        if stored is not images:
            others = (stored.float() / 255 != images).flatten(1).any(1).nonzero().flatten().tolist()
            for position, image in zip(others, images[others].cpu().numpy(), strict=True):
                digests[position] = hashlib.sha256(b"as shown" + image.tobytes()).digest()
        _remembered[images] = (images._version, digests)
    return digests
