"""Attention on tokens: the parts of transformers whose heads attend in ways of their own."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_bench.errors import MethodError

Tokens = Float[Tensor, "n l c"]
Attended = Float[Tensor, "n m c"]  # tokens that are attended to: the same, or others


class Heads(nn.Module):
    """The four linear layers around several heads; what a head computes is left to the caller."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def attended(
        self, query: Tokens, key: Attended, value: Attended, head: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tokens:
        """What `head` makes of queries, keys and values, (n, heads, tokens, channels of a head) each."""
        pairs = zip((self.query, self.key, self.value), (query, key, value), strict=True)
        q, k, v = (rearrange(linear(tokens), "n l (h d) -> n h l d", h=self.heads) for linear, tokens in pairs)
        return self.out(rearrange(head(q, k, v), "n h l d -> n l (h d)"))


class MaskedAttention(Heads):
    """Attention in several heads from which some tokens are hidden."""

    def forward(self, query: Tokens, key: Tokens, value: Tokens, visible: Bool[Tensor, "l l"]) -> Tokens:
        """For each token what it attends to where `visible` is true."""

        def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)

        return self.attended(query, key, value, head)


class MaskedLayer(nn.Module):
    """One or two masked attentions and two linear layers, each added to its input and normalised."""

    def __init__(self, width: int, heads: int, attentions: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(MaskedAttention(width, heads) for _ in range(attentions))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(attentions + 1))
        self.feed = perceptron(width, nn.ReLU())

    def forward(self, tokens: Tokens, pairs: Sequence[tuple[Tokens, Tokens]], visible: Bool[Tensor, "l l"]) -> Tokens:
        """Tokens after they attended to each pair of keys and values."""
        for attention, norm, (key, value) in zip(self.attentions, self.norms, pairs, strict=False):
            tokens = norm(tokens + attention(tokens, key, value, visible))
        return self.norms[-1](tokens + self.feed(tokens))


class PrototypeLayer(Heads):
    """Attention and a perceptron; with `softmax` as usual, else rectified and without the shortcut around it."""

    def __init__(self, width: int, heads: int, *, softmax: bool) -> None:
        super().__init__(width, heads)
        self.softmax = softmax
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = perceptron(width, nn.GELU())

    def forward(self, tokens: Tokens, others: Attended) -> Tokens:
        """Tokens made of the `others` that they attend to."""
        attended = self.attended(self.before(tokens), others, others, self._head)
        tokens = tokens + attended if self.softmax else attended
        return tokens + self.feed(self.after(tokens))

    def _head(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = q @ k.mT / q.shape[-1] ** 0.5
        return (weights.softmax(-1) if self.softmax else weights.relu()) @ v


def visible_beyond(edge: int, neighbourhood: int) -> Bool[Tensor, "l l"]:
    """Which tokens of an `edge` × `edge` grid each token may see: none within the square around it.

    Raises:
        MethodError: If the square covers the grid from some position.
    """
    y, x = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    positions = torch.stack([y.flatten(), x.flatten()], dim=1)
    visible = (positions[:, None] - positions[None]).abs().amax(-1) > neighbourhood // 2
    if not bool(visible.any(1).all()):
        raise MethodError(
            f"A neighbourhood of {neighbourhood} hides the whole grid of {edge} × {edge} from a token. Lower "
            "--set neighbourhood=…, or take a finer stage or larger images."
        )
    return visible


def perceptron(width: int, activation: nn.Module) -> nn.Sequential:
    """Two linear layers, four times as wide between them."""
    return nn.Sequential(nn.Linear(width, 4 * width), activation, nn.Linear(4 * width, width))
