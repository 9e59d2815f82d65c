"""Losses on feature maps, on tokens and on anomaly maps."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from medfsad_baselines.parts.attention import Tokens
from medfsad_baselines.parts.maps import Stages, cosine_distance


def stages_loss(teacher: Stages, student: Stages) -> Float[Tensor, ""]:
    """The mean cosine distance of each stage, summed over stages."""
    return torch.stack([cosine_distance(t, s).mean() for t, s in zip(teacher, student, strict=True)]).sum()


def soft_mining(tokens: Tokens, rebuilt: Tokens, gamma: float) -> Float[Tensor, ""]:
    """1 − cos of flattened maps; a position's gradient counts by its distance over the mean, to the power γ."""
    distance = 1 - functional.cosine_similarity(tokens, rebuilt, dim=-1).detach()
    weight = (distance / distance.mean().clamp_min(1e-12)).pow(gamma)[..., None]
    contracted = weight * rebuilt + ((1 - weight) * rebuilt).detach()
    return (1 - functional.cosine_similarity(tokens.flatten(1), contracted.flatten(1), dim=1)).mean()


def focal_and_dice(maps: Float[Tensor, "n gh gw"], masks: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Focal loss (γ = 2) and one minus Dice, at the masks' size."""
    size = list(masks.shape[1:])
    large = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    probability, truth = large.clamp(1e-6, 1 - 1e-6), masks.to(large.dtype)
    of_truth = torch.where(masks, probability, 1 - probability)
    dice = (2 * (probability * truth).sum((1, 2)) + 1) / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return -((1 - of_truth) ** 2 * of_truth.log()).mean() + (1 - dice).mean()
