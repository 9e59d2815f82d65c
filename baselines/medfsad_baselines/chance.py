"""Chance: a random score from the content of each image, so that it's the same in any order and any batch.

The support and the run's seed take part, so that draws and seeds are independent. Expected AUROC: 0.5.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


class Chance(Method):
    """Scores by hash."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """The support only seeds; its order doesn't matter."""
        key = hashlib.blake2b(b"".join(sorted(_digests(support, context))), digest_size=16)
        key.update(context.seed.to_bytes(8, "big"))
        seed = key.digest()

        def score(images: Images) -> Scores:
            values = [_uniform(seed + digest) for digest in _digests(images, context)]
            return Scores(image=torch.tensor(values, dtype=torch.float64, device=images.device))

        return score


def _digests(images: Images, context: RunContext) -> list[bytes]:
    """One per image. They are kept, so that an image's pixels come back from the device once and not in every draw."""
    (digests,) = context.cached("chance", images, lambda batch: (_hashed(batch),))
    return [digest.tobytes() for digest in digests.cpu().numpy()]


def _hashed(images: Images) -> UInt8[Tensor, "n 16"]:
    digests = [hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() for pixels in images.cpu().numpy()]
    return torch.tensor([list(digest) for digest in digests], dtype=torch.uint8, device=images.device)


def _uniform(data: bytes) -> float:
    """A number in [0, 1) from 53 bits of a hash."""
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 11) / 2**53


INFO = MethodInfo(
    name="chance",
    version="1.0.0",
    config=Config,
    build=Chance,
    summary="A random score from each image's content: AUROC 0.5 is expected",
    paper="",
    licence="Apache-2.0",
)
