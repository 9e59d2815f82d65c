"""PatchCore at K shots (Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022).

Patch features of two middle stages are averaged over their 3 × 3 neighbourhood (section 3.1), brought to the finer
grid and joined. The support's patches are the memory bank; a test patch's score is its distance to the nearest of them
(section 3.3), and the image score is the largest, re-weighted by how crowded the bank is there (equation 7).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.patches import Bank, FeatureConfig, patch_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """The paper's values where it states them.

    Attributes:
        stages: The paper's layers 2 and 3.
        coreset: Part of the bank that greedy selection keeps; at K shots the whole bank is small enough.
        neighbours: Of the nearest bank patch, for the re-weighting; 1 turns it off.
    """

    coreset: float = 1.0
    neighbours: int = 9

    def __post_init__(self) -> None:
        if not 0 < self.coreset <= 1 or self.neighbours < 1:
            raise ValueError("coreset lies in (0, 1] and neighbours is at least 1")


class PatchCore(Method):
    """Nearest neighbours in a bank of support patches."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fill the bank."""
        bank = Bank(self._patches(support, context).flatten(0, 2))
        if self.config.coreset < 1:
            bank = Bank(greedy_coreset(bank.vectors, max(1, round(self.config.coreset * len(bank)))))

        def score(images: Images) -> Scores:
            found = [self._score(patches, bank) for patches in self._patches(images, context)]
            return Scores(image=torch.stack([s for s, _ in found]), pixel=torch.stack([m for _, m in found]))

        return score

    def _patches(self, images: Images, context: RunContext) -> Float[Tensor, "n ph pw d"]:
        return patch_grid(context.features(self.config.features, images), pool=3)

    def _score(self, patches: Float[Tensor, "ph pw d"], bank: Bank) -> tuple[Float[Tensor, ""], Float[Tensor, "ph pw"]]:
        """One image at a time, so that no other image's presence can move a bit of it."""
        flat = patches.flatten(0, 1)
        distances = bank.distances(flat)
        worst = flat[distances.argmax()]
        member = bank.nearest(worst)
        distance = (worst - member).square().sum().sqrt()
        return self._weight(worst, distance, member, bank.vectors) * distance, distances.view(patches.shape[:2])

    def _weight(
        self,
        patch: Float[Tensor, " d"],
        distance: Float[Tensor, ""],
        member: Float[Tensor, " d"],
        vectors: Float[Tensor, "m d"],
    ) -> Float[Tensor, ""]:
        """Equation 7: 1 − softmax of the distance among those to the nearest member's own neighbours."""
        count = min(self.config.neighbours, len(vectors))
        if count < 2:
            return torch.ones_like(distance)
        around = torch.cdist(member[None], vectors)[0].topk(count, largest=False).indices
        distances = torch.cdist(patch[None], vectors[around])[0]
        return 1 - torch.exp(distance - torch.logsumexp(distances, 0))


def greedy_coreset(bank: Float[Tensor, "m d"], count: int) -> Float[Tensor, "k d"]:
    """Greedy k-centre selection (algorithm 1 of the paper), from the patch farthest from the mean on."""
    chosen = [int((bank - bank.mean(0)).square().sum(1).argmax())]
    distance = torch.cdist(bank[chosen], bank)[0]
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(bank[chosen[-1:]], bank)[0])
    return bank[chosen]


INFO = MethodInfo(
    name="patchcore",
    version="1.0.0",
    config=Config,
    build=PatchCore,
    summary="Distance to the nearest patch of the support",
    paper="Roth et al., CVPR 2022",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    has_seen=("imagenet-1k",),
    deviations=("no random projection before the coreset: at K shots the bank is small",),
)
