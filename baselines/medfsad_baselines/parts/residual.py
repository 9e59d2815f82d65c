"""Residual blocks like those of a ResNet, towards coarser grids and back."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Residual bottleneck at half (`scale` −1), the same (0) or twice (1) the resolution."""

    def __init__(self, inputs: int, outputs: int, scale: int = 0, *, rectified: bool = True) -> None:
        super().__init__()
        width = max(1, outputs // 2)
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(_spatial(width, width, scale, edge=3), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        same_shape = scale == 0 and inputs == outputs
        shortcut = nn.Sequential(_spatial(inputs, outputs, scale, edge=1), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity() if same_shape else shortcut
        self.rectified = rectified

    def forward(self, x: Float[Tensor, "n _c _h _w"]) -> Float[Tensor, "n _d _i _j"]:
        """Residual plus shortcut."""
        out: Tensor = self.body(x) + self.shortcut(x)
        return functional.relu(out) if self.rectified else out


def residual_blocks(inputs: int, outputs: int, scale: int, depth: int, *, rectified: bool) -> nn.Sequential:
    """`depth` blocks, the first of which changes the resolution; with `rectified` false the last ends without it."""
    ends = [rectified or index < depth - 1 for index in range(depth)]
    first = Block(inputs, outputs, scale, rectified=ends[0])
    return nn.Sequential(first, *(Block(outputs, outputs, rectified=end) for end in ends[1:]))


def halvings(inputs: int, outputs: int, height: int, target_height: int) -> list[nn.Module]:
    """3 × 3 convolutions of stride 2 from one height down to another; one of 1 × 1 where there is nothing to halve."""
    layers: list[nn.Module] = []
    while height > target_height:
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs, height = outputs, (height + 1) // 2
    return layers or [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _spatial(inputs: int, outputs: int, scale: int, *, edge: int) -> nn.Module:
    if scale > 0:
        return nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
    return nn.Conv2d(inputs, outputs, edge, 1 if scale == 0 else 2, edge // 2, bias=False)
