"""The record by which a method makes itself known. Importable without torch, so that listing methods is fast."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfsad_bench.method import Method


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What the suite has to know of a method before it builds it.

    Attributes:
        name: As typed on the command line.
        version: Rises with every change that moves a score; part of the run id.
        config: A frozen dataclass whose defaults are the paper's values.
        build: From a config to a method; imports torch inside.
        summary: One line for `medfsad methods`.
        paper: Citation or URL; empty for a control.
        licence: SPDX identifier of the implementation.
        presets: Per preset name the fields that differ from the defaults. `paper` is the defaults.
        has_seen: Public data sets behind its weights or its own training, for the contamination flag.
        knowledge: What it is given beyond the K normal images; methods that know more never share a rank.
        trains: Whether `pretrain` does anything, so that sources have to be there; not where the config says
            `trained_on="support"`.
        deviations: Where it leaves the paper, each with its reason.
        member: For a family of methods: from what stands behind the colon in `family:member` to that method's record,
            whose name is the whole. The family itself can't be run.
    """

    name: str
    version: str
    config: type
    build: Callable[[Any], "Method"]
    summary: str
    paper: str
    licence: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    has_seen: tuple[str, ...] = ()
    knowledge: str = "normals"
    trains: bool = False
    deviations: tuple[str, ...] = ()
    member: "Callable[[str], MethodInfo] | None" = None
