"""Losses on feature maps, on tokens and on anomaly maps."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from medfsad_baselines.parts.attention import Tokens
from medfsad_baselines.parts.maps import Stages, cosine_distance


def stages_loss(known: Stages, found: Stages) -> Float[Tensor, ""]:
    """The mean cosine distance of each stage, summed over stages."""
    return torch.stack([cosine_distance(a, b).mean() for a, b in zip(known, found, strict=True)]).sum()


def soft_mining(known: Tokens, found: Tokens, gamma: float) -> Float[Tensor, ""]:
    """1 − cos of flattened maps; a position's gradient counts by its distance over the mean, to the power γ."""
    distance = 1 - functional.cosine_similarity(known, found, dim=-1).detach()
    weight = (distance / distance.mean().clamp_min(1e-12)).pow(gamma)[..., None]
    contracted = weight * found + ((1 - weight) * found).detach()
    return (1 - functional.cosine_similarity(known.flatten(1), contracted.flatten(1), dim=1)).mean()


def focal_and_dice(maps: Float[Tensor, "n gh gw"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Focal loss (γ = 2) and one minus Dice, at the masks' size."""
    size = list(masks.shape[1:])
    found = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    found, truth = found.clamp(1e-6, 1 - 1e-6), masks.to(found.dtype)
    right = torch.where(masks, found, 1 - found)
    dice = (2 * (found * truth).sum((1, 2)) + 1) / (found.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return -((1 - right) ** 2 * right.log()).mean() + (1 - dice).mean()
