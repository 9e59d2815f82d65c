"""PatchCore at K shots (Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022).

Patch features of two middle stages are averaged over their 3 × 3 neighbourhood (section 3.1), brought to the finer
grid and joined. The support's patches are the memory bank; a test patch's score is its distance to the nearest of them
(section 3.3), and the image score is the largest, re-weighted by how crowded the bank is there (equation 7).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Backbone, Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config:
    """The paper's values where it states them.

    Attributes:
        backbone: Feature network; the paper's is a Wide ResNet-50-2.
        weights: Local file in place of the hub.
        stages: The paper's layers 2 and 3.
        size_px: Edge to which images are resized; None keeps the prepared size.
        coreset: Part of the bank that greedy selection keeps; at K shots the whole bank is small enough.
        neighbours: Of the nearest bank patch, for the re-weighting; 1 turns it off.
    """

    backbone: str = "wide_resnet50_2.tv_in1k"
    weights: str | None = None
    stages: tuple[int, ...] = (2, 3)
    size_px: int | None = None
    coreset: float = 1.0
    neighbours: int = 9


class PatchCore(Method):
    """Nearest neighbours in a bank of support patches."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._backbone = Backbone(config.backbone, config.stages, config.size_px, weights=config.weights)

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fill the bank."""
        bank = self._patches(support, context).flatten(0, 2)
        bank = bank[torch.argsort(bank[:, 0], stable=True)]  # the order of the support must not matter
        if self.config.coreset < 1:
            bank = greedy_coreset(bank, max(1, round(self.config.coreset * len(bank))))

        def score(images: Images) -> Scores:
            found = [self._score(patches, bank) for patches in self._patches(images, context)]
            return Scores(image=torch.stack([s for s, _ in found]), pixel=torch.stack([m for _, m in found]))

        return score

    def _patches(self, images: Images, context: RunContext) -> Float[Tensor, "n ph pw c"]:
        stages = [functional.avg_pool2d(f, 3, 1, 1) for f in context.features(self._backbone, images)]
        size = stages[0].shape[-2:]
        same = [stages[0], *(functional.interpolate(f, size, mode="bilinear", align_corners=False) for f in stages[1:])]
        return torch.cat(same, dim=1).permute(0, 2, 3, 1).contiguous()

    def _score(
        self, patches: Float[Tensor, "ph pw c"], bank: Float[Tensor, "m c"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "ph pw"]]:
        """One image at a time, so that no other image's presence can move a bit of it."""
        flat = patches.flatten(0, 1)
        nearest, index = torch.cdist(flat, bank).min(1)
        worst = nearest.argmax()
        weight = self._weight(flat[worst], nearest[worst], bank[index[worst]], bank)
        return weight * nearest[worst], nearest.view(patches.shape[:2])

    def _weight(
        self,
        patch: Float[Tensor, " c"],
        distance: Float[Tensor, ""],
        member: Float[Tensor, " c"],
        bank: Float[Tensor, "m c"],
    ) -> Float[Tensor, ""]:
        """Equation 7: 1 − softmax of the distance among those to the nearest member's own neighbours."""
        count = min(self.config.neighbours, len(bank))
        if count < 2:
            return torch.ones_like(distance)
        around = torch.cdist(member[None], bank)[0].topk(count, largest=False).indices
        distances = torch.cdist(patch[None], bank[around])[0]
        return 1 - torch.exp(distance - torch.logsumexp(distances, 0))


def greedy_coreset(bank: Float[Tensor, "m c"], count: int) -> Float[Tensor, "k c"]:
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
