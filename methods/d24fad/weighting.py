"""Learn-to-weight: how much each support image counts for a query, one scalar per scale (the paper's equation 4).

    w_k = softmax_k ⟨vec Z(q), vec φ(Z(s_k))⟩ / √C,    Z̃ = Σ_k w_k Z(s_k)

φ is a 1 × 1 convolution. The product runs over C·H·W terms and is divided by √C alone, as in the reference. Where each
query has supports of its own, φ is moved to the query's side, ⟨q, φ(s)⟩ = ⟨φᵀq, s⟩ + ⟨q, b⟩: one projection in place of
K. The bias b adds the same to all K products, so the softmax doesn't see it.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Weighting = Literal["learned", "uniform", "nearest"]


class LearnToWeight(nn.Module):
    """φ of the three scales.

    Args:
        channels: Of the student's three outputs, from fine to coarse.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.proj_in1 = nn.Conv2d(channels[0], channels[0], 1)
        self.proj_in2 = nn.Conv2d(channels[1], channels[1], 1)
        self.proj_in3 = nn.Conv2d(channels[2], channels[2], 1)

    def keys(self, support: Sequence[Float[Tensor, "n _c _h _w"]]) -> list[Float[Tensor, "n _c _h _w"]]:
        """φ of support features, scale by scale."""
        return [project(features) for project, features in zip(self._projections(), support, strict=True)]

    def turned(self, query: Sequence[Float[Tensor, "n _c _h _w"]]) -> list[Float[Tensor, "n _c _h _w"]]:
        """φᵀ of query features, scale by scale, without the bias."""
        pairs = zip(self._projections(), query, strict=True)
        return [functional.conv2d(features, project.weight.transpose(0, 1)) for project, features in pairs]

    def _projections(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        return self.proj_in1, self.proj_in2, self.proj_in3


def initialise(weight: LearnToWeight, generator: torch.Generator) -> None:
    """As torch makes convolutions: uniform within 1 / √C, weights and biases."""
    for part in weight.parameters():
        bound = 1 / math.sqrt(part.shape[0])
        nn.init.uniform_(part, -bound, bound, generator=generator)


def shared_weights(
    query: Float[Tensor, "n c h w"], keys: Float[Tensor, "k c h w"], support: Float[Tensor, "k c h w"], kind: Weighting
) -> Float[Tensor, "n k"]:
    """Weights of K supports that all n queries share."""
    if kind == "uniform":
        return query.new_full((len(query), len(keys)), 1 / len(keys))
    if kind == "nearest":
        q = functional.normalize(query.flatten(1), dim=1)
        s = functional.normalize(support.flatten(1), dim=1)
        return functional.one_hot((q @ s.T).argmax(1), len(keys)).to(query.dtype)
    return (query.flatten(1) @ keys.flatten(1).T / math.sqrt(query.shape[1])).softmax(1)


def own_weights(
    query: Float[Tensor, "n c h w"],
    turned: Float[Tensor, "n c h w"],
    support: Float[Tensor, "n k c h w"],
    kind: Weighting,
) -> Float[Tensor, "n k"]:
    """Weights of the K supports that each query has of its own.

    Args:
        query: Student features Z(q).
        turned: φᵀ Z(q).
        support: Student features Z(s_k).
        kind: Learned, or a control.
    """
    if kind == "uniform":
        return query.new_full(support.shape[:2], 1 / support.shape[1])
    if kind == "nearest":
        cosines = functional.cosine_similarity(query.flatten(1)[:, None], support.flatten(2), dim=2)
        return functional.one_hot(cosines.argmax(1), support.shape[1]).to(query.dtype)
    return (einsum(turned, support, "n c h w, n k c h w -> n k") / math.sqrt(query.shape[1])).softmax(1)
