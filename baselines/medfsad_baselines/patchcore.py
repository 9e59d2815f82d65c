"""PatchCore at K shots (Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022).

Patch features of two middle stages are averaged over their 3 × 3 neighbourhood (section 3.1), brought to the finer
grid and joined. The support's patches are the memory bank; a test patch's score is its distance to the nearest of them
(section 3.3), and the image score is the largest, re-weighted by how crowded the bank is there (equation 7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_baselines.parts.patches import FeatureConfig, MemoryBank, channels_last, patch_grid
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
        bank = MemoryBank(patch_grid(self._stages(support, context)).flatten(0, 2))
        whole = self.config.coreset == 1
        if not whole:
            bank = MemoryBank(greedy_coreset(bank.vectors, max(1, round(self.config.coreset * len(bank)))))

        def score(images: Images) -> Scores:
            def maps_to(banks: Sequence[MemoryBank]) -> Float[Tensor, "n banks ph pw"]:
                stages = self._stages(images, context)
                patches = patch_grid(stages)
                return torch.stack([_maps(patches, stages, bank) for bank in banks], dim=1)

            def maps_to_each(others: Images) -> Float[Tensor, "_queries n ph pw"]:
                return maps_to([MemoryBank(grid.flatten(0, 1)) for grid in patch_grid(self._stages(others, context))])

            key = ("patchcore", self.config.features)
            maps = (context.paired(key, images, support, maps_to_each) if whole else maps_to([bank])).amin(1)
            stages = context.features(self.config.features, images)
            worst = patches_at(stages, maps.flatten(1).argmax(1).tolist())
            return Scores(image=torch.stack([self._image_score(patch, bank) for patch in worst]), pixel=maps)

        return score

    def _stages(self, images: Images, context: RunContext) -> list[Float[Tensor, "n _ _ _"]]:
        stages = context.features(self.config.features, images)
        return [functional.avg_pool2d(channels_last(stage), 3, 1, 1) for stage in stages]

    def _image_score(self, worst: Float[Tensor, " d"], bank: MemoryBank) -> Float[Tensor, ""]:
        """The distance of the patch that is farthest from the bank, times the weight of equation 7.

        The weight is 1 − softmax of its distance to the nearest member among those to the member's own neighbours.
        """
        member = bank.nearest(worst, 1)
        around = bank.nearest(member[0], min(self.config.neighbours, len(bank)))
        distance = (worst - member[0]).square().sum().sqrt()
        if len(around) < 2:
            return distance
        return (1 - torch.exp(distance - torch.logsumexp(torch.cdist(worst[None], around)[0], 0))) * distance


def _maps(
    patches: Float[Tensor, "n ph pw d"], stages: Sequence[Float[Tensor, "n _ _ _"]], bank: MemoryBank
) -> Float[Tensor, "n ph pw"]:
    """Distances to the bank, one image at a time, so that no other image's presence can move a bit of them."""
    images = zip(patches, zip(*stages, strict=True), strict=True)
    return torch.stack([bank.distances_of_grid(grid, own_stages) for grid, own_stages in images])


def patches_at(stages: Sequence[Float[Tensor, "n _ _ _"]], numbers: Sequence[int]) -> list[Float[Tensor, " d"]]:
    """One patch of each image: averaged over its neighbourhood, on the first stage's grid, and joined.

    A draw whose distances are kept needs no other. Averaging and interpolation are linear, rows and columns each by
    themselves, so a patch is a stage's product with one row of their matrix from either side.

    Args:
        stages: As the network gives them, the finest first.
        numbers: Of the patches, row by row.
    """
    edge = stages[0].shape[-1]
    reach = [_reach(stage, edge) for stage in stages]
    return [
        torch.cat(
            [
                stage[image] @ rows[number % edge] @ rows[number // edge]
                for stage, rows in zip(stages, reach, strict=True)
            ]
        )
        for image, number in enumerate(numbers)
    ]


def _reach(stage: Float[Tensor, "n c h h"], edge: int) -> Float[Tensor, "edge h"]:
    """How much each position along one side counts in each of `edge` patches."""
    single = torch.eye(stage.shape[-1]).to(stage)[None]
    averaged = functional.avg_pool1d(single, 3, 1, 1)
    return functional.interpolate(averaged, edge, mode="linear", align_corners=False)[0].T


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
    grid={"stages": ((2, 3), (3,), (3, 4)), "neighbours": (1, 9)},
    has_seen=("imagenet-1k",),
    deviations=("no random projection before the coreset: at K shots the bank is small",),
)
