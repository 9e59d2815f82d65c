"""Which sets a method may be trained on for a target, be they at hand or behind the weights of a checkpoint."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from medfsad_bench.info import HoldOut
from medfsad_bench.results.protocol_checks import partners
from medfsad_bench.store import Dataset

FACTS = ("name", "benchmark", "version", "organ", "modality", "held_out_with", "membership_digest", "content_digest")
"""Attributes of a prepared file by which it is decided; a checkpoint records them of each of its sources."""


def why_held_out(source: Mapping[str, Any], target: Dataset, hold_out: HoldOut) -> str:
    """Why a method may not be trained on a set for a target; empty if it may.

    Sets of one name are held out from each other wherever they come from: one may be a copy of the other.

    Args:
        source: At least `FACTS` of the set.
        target: The target.
        hold_out: What it must not share with the target beside images.
    """
    name, attributes = str(source["name"]), target.attributes
    if name == target.name or source["membership_digest"] == attributes["membership_digest"]:
        return f"{name!r}, which is the target now"
    if name in partners(target) or target.name in json.loads(source["held_out_with"]):
        return f"{name!r}, which shares images or patients with the target {target.name!r}"
    if hold_out != "dataset" and source[hold_out] == attributes[hold_out]:
        return f"{name!r}, which is of the target's {hold_out} ({source[hold_out]})"
    return ""


def sources_for(target: Dataset, sets: Sequence[Dataset], hold_out: HoldOut) -> tuple[Dataset, ...]:
    """The sets that a method may be trained on: none that shares images with the target, nor what `hold_out` adds."""
    return tuple(other for other in sets if not why_held_out(other.attributes, target, hold_out))
