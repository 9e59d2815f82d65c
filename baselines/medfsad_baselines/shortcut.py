"""Shortcut: distance of a few image statistics to the support's. A set that it solves has a confound.

Brightness, contrast, sharpness, dark and bright area, and colour: what a scanner, a compression or a crop leaves
behind, and no disease of these sets should.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config:
    """A floor for spreads: with K = 2 the support's own spread can be next to nothing.

    Attributes:
        floor: Least spread of a statistic, as a part of its typical range (0.1 of [0, 1]).
    """

    floor: float = 0.02


class Shortcut(Method):
    """Root mean square of standardised differences to the support's median."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Remember the support's statistics."""
        of_support = statistics(support)
        centre = of_support.quantile(0.5, dim=0)
        spread = (of_support - centre).abs().mean(0).clamp_min(self.config.floor)

        def score(images: Images) -> Scores:
            (of_images,) = context.cached("shortcut statistics", images, lambda chunk: (statistics(chunk),))
            return Scores(image=((of_images - centre) / spread).square().mean(1).sqrt())

        return score


def statistics(images: Images) -> Float[Tensor, "n s"]:
    """Brightness, contrast, sharpness, dark and bright area, and two colour differences; each within [-1, 1]."""
    images = images.double()
    grey = images.mean(1)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    flat = grey.flatten(1)
    return torch.stack(
        [
            flat.mean(1),
            flat.std(1),
            laplacian.flatten(1).std(1),
            (flat < 0.05).double().mean(1),
            (flat > 0.95).double().mean(1),
            (images[:, 0] - images[:, 1]).flatten(1).mean(1),
            (images[:, 2] - images[:, 1]).flatten(1).mean(1),
        ],
        dim=1,
    )


INFO = MethodInfo(
    name="shortcut",
    version="1.0.0",
    config=Config,
    build=Shortcut,
    summary="Brightness, contrast, sharpness and colour alone: what a confound looks like",
    paper="",
    licence="Apache-2.0",
)
