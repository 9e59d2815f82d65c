"""Pixel distance: how far an image's pixels are from the mean of the support's. No network at all.

What a feature network is worth is what a method with one gains over this.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config:
    """How much detail is compared.

    Attributes:
        size_px: Edge to which images are shrunk first, so that a shift of a pixel or two costs little.
    """

    size_px: int = 32


class PixelDistance(Method):
    """Root mean square difference to the mean support image; position by position as a map."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Average the support's pixels."""
        mean = self._shrunk(support, context).mean(0)

        def score(images: Images) -> Scores:
            squares = (self._shrunk(images, context) - mean).square().mean(1)
            return Scores(image=squares.mean((1, 2)).sqrt(), pixel=squares.sqrt())

        return score

    def _shrunk(self, images: Images, context: RunContext) -> Float[Tensor, "n 3 s s"]:
        size = (self.config.size_px, self.config.size_px)

        def shrink(batch: Images) -> list[Float[Tensor, "n 3 s s"]]:
            return [functional.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)]

        return context.cached(("pixel distance", size), images, shrink)[0]


INFO = MethodInfo(
    name="pixel_distance",
    version="1.0.0",
    config=Config,
    build=PixelDistance,
    summary="Distance of the shrunk pixels to the support's mean: no network",
    paper="",
    licence="Apache-2.0",
)
