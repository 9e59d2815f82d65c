"""What images are known by: a digest of their pixels, the same for an image as it is stored and as a method sees it.

Images of a prepared file are hashed once, on the host, when they are read; their digests stay with the tensors that are
made of them (`remember`), so that none is brought back from the device. Only a tensor that somebody else made is.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_remembered: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor → its version then, and a digest per image


def remember(images: Shaped[Tensor, "n c h w"], digests: Sequence[bytes]) -> None:
    """Keep the digests of some images for as long as the tensor lives and isn't changed."""
    _remembered[images] = (images._version, list(digests))


def digests_of(images: Shaped[Tensor, "n c h w"]) -> list[bytes]:
    """One per image, remembered or made."""
    version, digests = _remembered.get(images, (-1, []))
    if version != images._version:
        digests = _made(images)
        remember(images, digests)
    return digests


def stored_digests(images: UInt8[np.ndarray, "n c h w"]) -> list[bytes]:
    """One per image, of pixels as they are stored."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _made(images: Shaped[Tensor, "n c h w"]) -> list[bytes]:
    """That of the stored pixels where an image is what `float() / 255` makes of such; else of what it is."""
    if images.dtype == torch.uint8:
        return stored_digests(images.cpu().numpy())
    stored = (images * 255).round().clamp(0, 255).byte()
    digests = stored_digests(stored.cpu().numpy())
    others = (stored.float() / 255 != images).flatten(1).any(1).nonzero().flatten().tolist()
    for position, image in zip(others, images[others].cpu().numpy(), strict=True):
        digests[position] = hashlib.sha256(b"as shown" + image.tobytes()).digest()
    return digests
