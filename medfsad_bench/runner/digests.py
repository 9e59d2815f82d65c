"""What images are known by: a digest of their pixels, the same for an image as it is stored and as a method sees it.

Images of a prepared file are hashed once, on the host, when they are read; the tensors that the runner makes of them
have their digests (`inherit`, `chosen`), so that none is brought back from the device. Only a tensor that a method made
is: a rotated support, or a slice that it takes of the support itself.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_remembered: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor → its version then, and a digest per image


def inherit(
    images: Shaped[Tensor, "m c h w"],
    origin: Shaped[Tensor, "n c h w"] | UInt8[np.ndarray, "n c h w"],
    positions: Sequence[int] | None = None,
) -> None:
    """Let images have the digests of those that they are made of, so that they needn't be brought back and hashed.

    Args:
        images: On any device, as they are stored or as a method sees them.
        origin: What they were made of.
        positions: Which of these; None for all in their order.
    """
    digests = digests_of(origin)
    _remember(images, digests if positions is None else [digests[position] for position in positions])


def chosen(images: Shaped[Tensor, "n c h w"], positions: Sequence[int]) -> Shaped[Tensor, "m c h w"]:
    """Some of the images, with the digests that they have."""
    part = images[list(positions)]
    if _at_hand(images) is not None:  # else all would be hashed, for each part anew
        inherit(part, images, positions)
    return part


def digests_of(images: Shaped[Tensor, "n c h w"] | UInt8[np.ndarray, "n c h w"]) -> list[bytes]:
    """One per image; those of a tensor are made once for as long as it lives and isn't changed.

    It is that of the stored pixels where an image is what `float() / 255` makes of such; else of what it is.
    """
    if isinstance(images, np.ndarray):
        return [hashlib.sha256(image.tobytes()).digest() for image in images]
    if (digests := _at_hand(images)) is not None:
        return list(digests)
    stored = images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).byte()
    digests = digests_of(stored.cpu().numpy())
    if stored is not images:
        others = (stored.float() / 255 != images).flatten(1).any(1).nonzero().flatten().tolist()
        for position, image in zip(others, images[others].cpu().numpy(), strict=True):
            digests[position] = hashlib.sha256(b"as shown" + image.tobytes()).digest()
    _remember(images, digests)
    return digests


def _at_hand(images: Shaped[Tensor, "n c h w"]) -> list[bytes] | None:
    remembered = _remembered.get(images)
    return remembered[1] if remembered and remembered[0] == images._version else None


def _remember(images: Shaped[Tensor, "n c h w"], digests: list[bytes]) -> None:
    if not images.is_inference():  # these don't tell when they are changed
        _remembered[images] = (images._version, digests)
