"""Attention on tokens: the parts of transformers whose heads look in a way of their own."""

from collections.abc import Callable, Sequence

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

Tokens = Float[Tensor, "n l c"]


class Heads(nn.Module):
    """The four linear layers around several heads; what a head does is its user's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def found(
        self, query: Tokens, key: Tokens, value: Tokens, head: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tokens:
        """What `head` makes of queries, keys and values, (n, heads, tokens, channels of a head) each."""
        parts = zip((self.query, self.key, self.value), (query, key, value), strict=True)
        q, k, v = (rearrange(linear(one), "n l (h d) -> n h l d", h=self.heads) for linear, one in parts)
        return self.out(rearrange(head(q, k, v), "n h l d -> n l (h d)"))


class MaskedAttention(Heads):
    """Attention in several heads, each token blind for some."""

    def forward(self, query: Tokens, key: Tokens, value: Tokens, seen: Bool[Tensor, "l l"]) -> Tokens:
        """What each token finds where `seen` is true."""

        def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)

        return self.found(query, key, value, head)


class MaskedLayer(nn.Module):
    """One or two masked attentions and two linear layers, each added to its input and normalised."""

    def __init__(self, width: int, heads: int, attentions: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(MaskedAttention(width, heads) for _ in range(attentions))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(attentions + 1))
        self.feed = perceptron(width, nn.ReLU())

    def forward(self, tokens: Tokens, asked: Sequence[tuple[Tokens, Tokens]], seen: Bool[Tensor, "l l"]) -> Tokens:
        """Tokens after they asked each pair of keys and values."""
        for attention, norm, (key, value) in zip(self.attentions, self.norms, asked, strict=False):
            tokens = norm(tokens + attention(tokens, key, value, seen))
        return self.norms[-1](tokens + self.feed(tokens))


def perceptron(width: int, between: nn.Module) -> nn.Sequential:
    """Two linear layers, four times as wide between them."""
    return nn.Sequential(nn.Linear(width, 4 * width), between, nn.Linear(4 * width, width))
