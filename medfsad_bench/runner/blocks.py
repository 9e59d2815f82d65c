"""Values of many images as a few tensors: kept as they were computed together, gathered as they are asked for."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

Key = tuple[Hashable, bytes]  # what was computed, and the digest of the image that it was computed of


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Values that were computed together: one tensor per stage, and a row in each per key."""

    values: tuple[Tensor, ...]
    keys: Sequence[Key]
    number: int = field(default_factory=count().__next__)


Place = tuple[Block, int]  # in which block, at which row


def gathered(places: Sequence[Place], stages: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """The rows at some places, as new tensors: one gather per block, however many images.

    Args:
        places: Of the rows.
        stages: Positions of the stages to return; None returns all.
    """
    rows: dict[int, list[int]] = {}
    outputs: dict[int, list[int]] = {}
    blocks = {block.number: block for block, _ in places}
    for output, (block, row) in enumerate(places):
        rows.setdefault(block.number, []).append(row)
        outputs.setdefault(block.number, []).append(output)
    order = [output for number in blocks for output in outputs[number]]
    outcome = []
    for stage in range(len(places[0][0].values)) if stages is None else stages:
        parts = [_rows(blocks[number].values[stage], rows[number]) for number in blocks]
        joined = torch.cat(parts)
        outcome.append(joined if order == sorted(order) else joined[_inverse(order)])
    return tuple(outcome)


def _rows(values: Tensor, rows: list[int]) -> Tensor:
    first = rows[0]
    return values[first : first + len(rows)] if rows == list(range(first, first + len(rows))) else values[rows]


def _inverse(order: list[int]) -> list[int]:
    positions = [0] * len(order)
    for position, output in enumerate(order):
        positions[output] = position
    return positions
