"""Chance: a random score from the content of each image, so that it's the same in any order and any batch.

The support and the run's seed take part, so that draws and seeds are independent. Expected AUROC: 0.5.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
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
        key = hashlib.blake2b(b"".join(sorted(_digest(image) for image in support)), digest_size=16)
        key.update(context.seed.to_bytes(8, "big"))
        seed = key.digest()

        def score(images: Images) -> Scores:
            values = [_uniform(seed + _digest(image)) for image in images]
            return Scores(image=torch.tensor(values, dtype=torch.float64, device=images.device))

        return score


def _digest(image: Float[Tensor, "3 h w"]) -> bytes:
    return hashlib.blake2b(image.contiguous().cpu().numpy().tobytes(), digest_size=16).digest()


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
