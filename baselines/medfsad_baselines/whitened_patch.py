"""Nearest support patches in the space where the support's patches have no direction of their own.

Directions in which normal patches vary much say little, those in which they hardly vary say much. The covariance of all
support patches, shrunk towards a multiple of the identity (oracle approximating shrinkage; Chen et al., Shrinkage
Algorithms for MMSE Covariance Estimation, 2010), gives W = Σ^(−1/2); a patch's score is the Euclidean distance of W x
to the nearest W b: the Mahalanobis distance of two patches.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.maps import check_fraction, top_mean
from medfsad_baselines.parts.patches import FeatureConfig, MemoryBank, middle_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """Two middle stages, as in PatchCore, on the coarser one's grid.

    The space is another for every support, so nothing of the search is kept for the next draw; on the finer grid it
    would take sixteen times as long.

    Attributes:
        top_fraction: Of the map's positions, whose mean is the image score.
    """

    top_fraction: float = 0.01

    def __post_init__(self) -> None:
        check_fraction(self.top_fraction)


class WhitenedPatch(Method):
    """Mahalanobis distance to the nearest patch of the support, under their own shrunk covariance."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Whiten the support's patches."""
        patches = self._patches(support, context).flatten(0, 2)
        whitening = whitener(patches)
        bank = MemoryBank(patches @ whitening)

        def score(images: Images) -> Scores:
            grids = self._patches(images, context)
            maps = torch.stack([bank.distances_of(grid @ whitening) for grid in grids]).float()
            return Scores(image=top_mean(maps, self.config.top_fraction), pixel=maps)

        return score

    def _patches(self, images: Images, context: RunContext) -> Float[Tensor, "n ph pw d"]:
        return middle_grid(context.features(self.config.features, images)).double()


def whitener(patches: Float[Tensor, "m d"]) -> Float[Tensor, "d d"]:
    """Σ^(−1/2) of the patches' shrunk covariance; where they don't vary at all, the identity."""
    from sklearn.covariance import oas  # takes seconds to import, which every command would wait for

    rows = patches[torch.argsort(patches[:, 0], stable=True)]  # sums in an order that the support's doesn't change
    covariance = torch.from_numpy(oas(rows.cpu().numpy())[0]).to(patches)
    variances, vectors = torch.linalg.eigh(covariance)
    if variances[-1] <= 0:
        return torch.eye(len(covariance)).to(patches)
    least = variances[-1] * torch.finfo(variances.dtype).eps * len(variances)
    return vectors @ torch.diag(variances.clamp_min(least).rsqrt()) @ vectors.T


INFO = MethodInfo(
    name="whitened_patch",
    version="1.1.0",
    config=Config,
    build=WhitenedPatch,
    summary="Mahalanobis distance to the nearest patch of the support",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    grid={"top_fraction": (0.01, 0.05, 0.2)},
    has_seen=("imagenet-1k",),
)
