"""PaDiM at K shots (Defard et al., PaDiM: a Patch Distribution Modeling Framework, ICPR Workshops 2021).

A Gaussian at each position of the grid, from the support's vectors there; the map is the Mahalanobis distance
(equation 2). K vectors can't give a covariance of a hundred dimensions, so it is shrunk towards a multiple of the
identity (oracle approximating shrinkage; Chen et al., Shrinkage Algorithms for MMSE Covariance Estimation, 2010):

    Σ = (1 − ρ) S + (ρ tr(S) / d + ε) I

S has rank below K, so the distance costs K products per position and no inverse of d × d (Woodbury's identity).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from medfsad_baselines.parts.maps import squared_up
from medfsad_baselines.parts.patches import FeatureConfig, patch_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """The paper's values where it states them.

    Attributes:
        stages: The paper's layers 1 to 3.
        channels: How many are drawn at random (the paper's count for a Wide ResNet-50-2); None takes all.
        ridge: ε, added to every variance.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    channels: int | None = 550
    ridge: float = 0.01


class Padim(Method):
    """A shrunk Gaussian at every position."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fit the Gaussians."""
        vectors = self._vectors(support, context).transpose(0, 1)
        mean, whitener, isotropic = self._gaussians(vectors)

        def score(images: Images) -> Scores:
            maps = [mahalanobis(v - mean, whitener, isotropic) for v in self._vectors(images, context)]
            return Scores(pixel=squared_up(torch.stack(maps)))

        return score

    def _gaussians(
        self, vectors: Float[Tensor, "p k d"]
    ) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p k d"], Float[Tensor, " p"]]:
        return gaussians(vectors, self.config.ridge)

    def _vectors(self, images: Images, context: RunContext) -> Float[Tensor, "n p d"]:
        grid = patch_grid(context.features(self.config.features, images), mode="nearest").flatten(1, 2)
        return grid[..., self._chosen(grid.shape[-1], context)].double()

    def _chosen(self, count: int, context: RunContext) -> Int64[Tensor, " d"]:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(context.seed))
        return order[: self.config.channels].sort().values.to(context.device)


def gaussians(
    vectors: Float[Tensor, "p k d"], ridge: float
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p k d"], Float[Tensor, " p"]]:
    """Mean, W and a at each position, where x's squared Mahalanobis distance is (|x|² − |W x|²) / a.

    With Σ = a I + UᵀU, Woodbury's identity gives Σ⁻¹ = (I − Uᵀ (a I + U Uᵀ)⁻¹ U) / a, so W = L⁻¹ U where
    L Lᵀ = a I + U Uᵀ.
    """
    shots, dimensions = vectors.shape[1:]
    mean = vectors.mean(1)
    centred = vectors - mean[:, None]
    gram = centred @ centred.mT / shots  # has the eigenvalues of S that aren't zero
    variance = gram.diagonal(dim1=1, dim2=2).sum(1) / dimensions
    second = gram.square().sum((1, 2)) / dimensions**2
    denominator = (shots + 1) * (second - variance.square() / dimensions)
    shrinkage = torch.where(denominator > 0, (second + variance.square()) / denominator, 1).clamp_max(1)
    isotropic = shrinkage * variance + ridge
    scale = (1 - shrinkage)[:, None, None]
    inner = scale * gram + torch.diag_embed(isotropic[:, None].expand(-1, shots))
    factor = torch.linalg.cholesky(inner)
    whitener = torch.linalg.solve_triangular(factor, (scale / shots).sqrt() * centred, upper=False)
    return mean, whitener, isotropic


def mahalanobis(
    differences: Float[Tensor, "p d"], whitener: Float[Tensor, "p k d"], isotropic: Float[Tensor, "p"]
) -> Float[Tensor, " p"]:
    """Distance at each position from the Gaussian there, for differences from its mean; see `gaussians`."""
    inside = torch.einsum("pkd,pd->pk", whitener, differences).square().sum(1)
    return ((differences.square().sum(1) - inside).clamp_min(0) / isotropic).sqrt()


INFO = MethodInfo(
    name="padim",
    version="1.0.0",
    config=Config,
    build=Padim,
    summary="Mahalanobis distance to a Gaussian at each position",
    paper="Defard et al., ICPRW 2021",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0", "stages": (2, 3), "channels": 100}},
    has_seen=("imagenet-1k",),
    deviations=("the covariance is shrunk: K vectors don't give one of full rank",),
)
