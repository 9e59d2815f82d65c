"""The student: a decoder that mirrors the teacher, from its last stage back to the first three. No bottleneck between.

Three stages of residual bottleneck blocks, each a 1 × 1, 3 × 3 and 1 × 1 convolution with batch-norm. The first block
of a stage brings the map to the next finer grid by a transposed 2 × 2 convolution of stride 2, on both of its paths.
The bottleneck is half as wide as the output. Names of parameters are those of the reference's checkpoints.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Student(nn.Module):
    """From the teacher's stage 4 to estimates of its stages 1, 2 and 3.

    Args:
        channels: Of the teacher's stages 1 to 4 (256, 512, 1024, 2048 for a Wide ResNet-50-2).
        finer: Whether stage i has twice the resolution of stage i + 1, for i = 1, 2, 3.
        depths: Blocks of the three stages, from coarse to fine.
    """

    def __init__(self, channels: Sequence[int], finer: Sequence[bool], depths: Sequence[int]) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.layer1 = _stage(c4, c3, finer[2], depths[0])
        self.layer2 = _stage(c3, c2, finer[1], depths[1])
        self.layer3 = _stage(c2, c1, finer[0], depths[2])

    def forward(self, last: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _c _h _w"]]:
        """Estimates of stages 1, 2, 3, from fine to coarse."""
        coarse = self.layer1(last)
        middle = self.layer2(coarse)
        return [self.layer3(middle), middle, coarse]

    def in_passes(self, last: Float[Tensor, "n c h w"], each: int) -> list[list[Float[Tensor, "_n _c _h _w"]]]:
        """`forward` of `each` images at a time, which matters in training: batch-norm takes the statistics of a pass.

        What comes before the first batch-norm is linear and the widest of all layers, so it is computed for all passes
        at once.
        """
        first, *others = cast("list[Block]", list(self.layer1))
        return [self._from_first_block(coarse, others) for coarse in first.in_passes(last, each)]

    def _from_first_block(self, coarse: Float[Tensor, "n c h w"], others: "Sequence[Block]") -> list[Tensor]:
        for block in others:
            coarse = block(coarse)
        middle = self.layer2(coarse)
        return [self.layer3(middle), middle, coarse]


class Block(nn.Module):
    """Residual bottleneck; the first of a stage changes channels and, if `finer`, doubles the resolution."""

    def __init__(self, inputs: int, outputs: int, *, finer: bool = False) -> None:
        super().__init__()
        width = max(1, outputs // 2)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2: nn.Module = _spatial(width, width, finer=finer)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.upsample: nn.Sequential | None = None
        if finer:
            self.upsample = nn.Sequential(Doubling(inputs, outputs), nn.BatchNorm2d(outputs))
        elif inputs != outputs:
            self.upsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _c _h _w"]:
        """Residual plus shortcut."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.upsample is None else self.upsample(x)
        return self.relu(out)

    def in_passes(self, x: Float[Tensor, "n c h w"], each: int) -> list[Float[Tensor, "_n _c _h _w"]]:
        """`forward` of `each` images at a time, with what comes before the batch-norms computed for all at once."""
        narrow, shortcut = self.conv1(x), x if self.upsample is None else self.upsample[0](x)
        return [self._normed(*parts) for parts in zip(narrow.split(each), shortcut.split(each), strict=True)]

    def _normed(
        self, narrow: Float[Tensor, "n _c h w"], shortcut: Float[Tensor, "n d _h _w"]
    ) -> Float[Tensor, "n d _h _w"]:
        """From the first batch-norm on, of the residual and of the shortcut."""
        out = self.relu(self.bn1(narrow))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += shortcut if self.upsample is None else self.upsample[1](shortcut)
        return self.relu(out)


class Doubling(nn.Module):
    """Transposed 2 × 2 convolution of stride 2, as one matrix product, since its windows don't overlap.

    A processor's own kernel has half a product's speed on coarse maps of many channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs, 2, 2))
        self.initialise()

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """As torch makes transposed convolutions: uniform within 1 / √(4 · outputs)."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _c _h _w"]:
        """Twice as high and wide."""
        rows = rearrange(x, "n c h w -> (n h w) c") @ self.weight.flatten(1)
        _, _, height, width = x.shape
        return rearrange(rows, "(n h w) (c a b) -> n c (h a) (w b)", h=height, w=width, a=2, b=2)


def initialise(student: Student, generator: torch.Generator) -> None:
    """He's normal initialisation by the output's size for convolutions; transposed ones as torch makes them.

    So does the decoder that the reference takes over. Decision record 0004 has figures.
    """
    for part in student.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(part, Doubling):
            part.initialise(generator)


def _stage(inputs: int, outputs: int, finer: bool, depth: int) -> nn.Sequential:
    first = Block(inputs, outputs, finer=finer)
    return nn.Sequential(first, *(Block(outputs, outputs) for _ in range(depth - 1)))


def _spatial(inputs: int, outputs: int, *, finer: bool) -> nn.Module:
    if finer:
        return Doubling(inputs, outputs)
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
