"""Which sets a method may be trained on for a target, be they at hand or behind the weights of a checkpoint."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from medfsad_bench.info import HoldOut
from medfsad_bench.results.protocol_checks import partners, partners_of
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
    return tuple(
        other
        for other in sets
        if not why_held_out(other.attributes, target, hold_out) and not share_files(target, other)
    )


def share_files(target: Dataset, other: Dataset) -> bool:
    """Whether two prepared sets have an image of the same raw file, whatever their manifests know of each other.

    Altered copies and other formats are found when the second of the two is prepared, which names the first in its
    `held_out_with`.
    """
    return not set(target.table["sha256"]).isdisjoint(other.table["sha256"])


def held_out_by_content(target: Dataset, sets: Sequence[Dataset]) -> list[str]:
    """Sets that are held out with the target although no manifest says so: their prepared files share images."""
    in_manifests = {target.name, *partners_of(target.name)}
    return [
        other.name
        for other in sets
        if other.name not in in_manifests
        and (other.name in _declared(target) or target.name in _declared(other) or share_files(target, other))
    ]


def _declared(dataset: Dataset) -> list[str]:
    return list(json.loads(dataset.attributes["held_out_with"]))
