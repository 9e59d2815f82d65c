"""Synthetic lesions for normal images, the three kinds that MediCLIP trains with (Zhang et al., MICCAI 2024).

cut and paste    a rectangle of a normal image, pasted elsewhere (Li et al., CutPaste, CVPR 2021)
intensity        Gaussian noise, smoothed, added within an ellipse: brighter or darker tissue
source           tissue pushed outwards within a disc, as a growing mass does (Baugh et al., Many Tasks, MICCAI 2023)

Outside its mask an image stays as it was. Random numbers come from a generator on the CPU, so images are made there.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn import functional

from medfsad_bench.method import Images

Image = Float[Tensor, "3 h w"]
Mask = Bool[Tensor, "h w"]


def with_lesions(
    support: Images, count: int, generator: Generator
) -> tuple[Float[Tensor, "m 3 h w"], Bool[Tensor, "m h w"]]:
    """`count` images with a lesion each, and the lesions' masks: supports and kinds take turns.

    Args:
        support: Normal images on the CPU; the result depends on their order.
        count: How many.
        generator: On the CPU.
    """
    made = []
    for number in range(count):
        image = support[number % len(support)]
        donor = support[_whole(0, len(support), generator)]
        made.append(KINDS[number % len(KINDS)](image, donor, generator))
    return torch.stack([image for image, _ in made]), torch.stack([mask for _, mask in made])


def cut_paste(image: Image, donor: Image, generator: Generator) -> tuple[Image, Mask]:
    """A rectangle of `donor`, of 2 to 15 % of the area, at another position."""
    height, width = image.shape[1:]
    area, ratio = _uniform(0.02, 0.15, generator) * height * width, _uniform(0.4, 2.5, generator)
    rows = min(max(int((area * ratio) ** 0.5), 2), height - 1)
    columns = min(max(int((area / ratio) ** 0.5), 2), width - 1)
    row, column = _whole(0, height - rows, generator), _whole(0, width - columns, generator)
    top, left = _whole(0, height - rows, generator), _whole(0, width - columns, generator)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : top + rows, left : left + columns] = True
    changed = image.clone()
    changed[:, mask] = donor[:, row : row + rows, column : column + columns].flatten(1)
    return changed, mask


def intensity(image: Image, _donor: Image, generator: Generator) -> tuple[Image, Mask]:
    """Smooth noise and a shift of ±0.1 to ±0.5 within an ellipse."""
    mask = _ellipse(image, generator) < 1
    noise = torch.randn(1, 1, 8, 8, generator=generator)
    noise = functional.interpolate(noise, list(image.shape[1:]), mode="bicubic", align_corners=False)[0]
    sign = 1.0 if _uniform(0, 1, generator) < 0.5 else -1.0
    shifted = (image + sign * _uniform(0.1, 0.5, generator) + 0.1 * noise).clamp(0, 1)
    return torch.where(mask, shifted, image), mask


def source(image: Image, _donor: Image, generator: Generator) -> tuple[Image, Mask]:
    """What lies at r² of the way to the disc's edge comes to lie at r: the middle grows, the edge stays."""
    height, width = image.shape[1:]
    radius = _uniform(0.1, 0.25, generator) * min(height, width)
    rows, columns = _positions(image)
    row, column = _uniform(radius, height - radius, generator), _uniform(radius, width - radius, generator)
    share = ((rows - row) ** 2 + (columns - column) ** 2).sqrt() / radius
    pull = share.clamp(max=1)  # r² / r
    where = torch.stack([column + (columns - column) * pull, row + (rows - row) * pull], dim=-1)
    grid = 2 * where / torch.tensor([width - 1, height - 1]) - 1
    warped = functional.grid_sample(image[None], grid[None], padding_mode="border", align_corners=True)[0]
    return torch.where(share < 1, warped, image), share < 1


KINDS: tuple[Callable[[Image, Image, Generator], tuple[Image, Mask]], ...] = (cut_paste, intensity, source)


def _ellipse(image: Image, generator: Generator) -> Float[Tensor, "h w"]:
    """Squared distance from a random centre in units of random half axes: below 1 inside."""
    height, width = image.shape[1:]
    rows, columns = _positions(image)
    row, column = _uniform(0.2, 0.8, generator) * height, _uniform(0.2, 0.8, generator) * width
    tall, broad = _uniform(0.06, 0.2, generator) * height, _uniform(0.06, 0.2, generator) * width
    return ((rows - row) / tall) ** 2 + ((columns - column) / broad) ** 2


def _positions(image: Image) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    rows, columns = torch.meshgrid(
        *(torch.arange(edge, dtype=torch.float32) for edge in image.shape[1:]), indexing="ij"
    )
    return rows, columns


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _whole(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, max(high, low + 1), (), generator=generator))
