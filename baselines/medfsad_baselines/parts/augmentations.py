"""Images and feature maps turned, scaled and shifted about their centre; and the augmented images of a support."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_bench.method import Images

Maps = Float[Tensor, "n c h w"]
UPRIGHT: Mapping[str, Any] = {  # augmentations of an image that has one right way up
    "rotations": (-22.5, -11.25, 11.25, 22.5),
    "shifts": (0.1,),
    "quarter_turns": False,
    "flip": False,
    "grey": False,
}


@dataclass(frozen=True)
class AugmentationConfig:
    """Which augmented images join a support image; by default, the 22 of RegAD.

    Attributes:
        rotations: Of each support image, degrees.
        shifts: Of each support image, along both diagonals and both ways, as a part of the edge.
        quarter_turns: Whether each support image is also turned by 90, 180 and 270 degrees.
        flip: Whether it is mirrored, left to right.
        grey: Whether its colours are averaged.
    """

    rotations: tuple[float, ...] = (-45.0, -33.75, -22.5, -11.25, 11.25, 22.5, 33.75, 45.0)
    shifts: tuple[float, ...] = (0.1, 0.2)
    quarter_turns: bool = True
    flip: bool = True
    grey: bool = True

    def augmented(self, images: Images) -> Float[Tensor, "_m 3 h w"]:
        """The images as they are, then each augmentation of all of them."""
        augmented = [images, *(rotated(images, degrees) for degrees in self.rotations)]
        augmented += [shifted(images, x * s, y * s) for s in self.shifts for x in (-1, 1) for y in (-1, 1)]
        augmented += [images.rot90(turns, (2, 3)) for turns in (1, 2, 3) if self.quarter_turns]
        augmented += [images.flip(3)] if self.flip else []
        augmented += [images.mean(1, keepdim=True).expand_as(images)] if self.grey else []
        return torch.cat(augmented)


def with_rotations(images: Images, count: int) -> Float[Tensor, "_m 3 h w"]:
    """The images as they are, then all of them turned by each other multiple of 360° / `count`."""
    if count == 1:
        return images  # and not a copy, whose pixels the cache would have to bring back from the device to know them
    return torch.cat([images, *(rotated(images, 360 * step / count) for step in range(1, count))])


def rotated(images: Images, degrees: float) -> Images:
    """Images turned about their centre; quarter turns exactly, others by bilinear sampling with repeated borders."""
    if degrees % 90 == 0:
        return torch.rot90(images, round(degrees / 90), dims=(2, 3))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=images.device)
    return sampled(images, turn.expand(len(images), -1, -1))


def shifted(images: Images, x: float, y: float) -> Images:
    """Images moved to the left and upwards by these parts of their edges, with repeated borders."""
    move = torch.tensor([[1.0, 0.0, 2 * x], [0.0, 1.0, 2 * y]], device=images.device)
    return sampled(images, move.expand(len(images), -1, -1))


def warped(maps: Maps, turns: Float[Tensor, "n 2 2"]) -> Maps:
    """Maps turned and scaled about their centre, each by its own matrix from coordinates after to those before."""
    return sampled(maps, functional.pad(turns, (0, 1)))


def sampled(maps: Maps, affine: Float[Tensor, "n 2 3"]) -> Maps:
    """Maps read, bilinear and with repeated borders, where `affine` takes the coordinates (−1 to 1) of the result."""
    grid = functional.affine_grid(affine, list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
