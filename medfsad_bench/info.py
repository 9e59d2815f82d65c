"""A method's record: its name, settings, paper and what it has seen. Imports no torch, so that listing is fast."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from medfsad_bench.method import Method

HoldOut = Literal["dataset", "organ", "modality"]
"""What no source may share with the target."""

Protocol = Literal["strict", "published"]
"""How a method is tested: the suite's own rules, or the test loop of D²4FAD's published code, which never ranks."""

METHOD_NAME = r"[a-z0-9][a-z0-9_.-]*(:[a-z0-9][a-z0-9_.-]*)?"
"""Regular expression of a method's name, or of a member of a family: rows and folders bear it."""

TEXT = "text"
ABNORMAL_SUPPORTS = "abnormal supports"
SOURCE_ANOMALIES = "anomalies of other sets"


def knowledge_of(*kinds: str) -> str:
    """What `MethodInfo.knowledge` says of several kinds: the same words for the same knowledge, so the same track.

    >>> knowledge_of(TEXT, ABNORMAL_SUPPORTS)
    'abnormal supports, text'
    """
    return ", ".join(sorted(kinds))


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What the suite has to know of a method before it builds it.

    Attributes:
        name: As typed on the command line.
        version: Rises with every change that moves a score; part of the run id.
        config: A frozen dataclass whose defaults are the paper's values.
        build: From a config to a method; imports torch inside.
        summary: One line for `medfsad methods`.
        paper: Citation in 26 characters, as in `Roth et al., CVPR 2022`; empty for a control.
        licence: SPDX identifier of the implementation.
        presets: Per preset name the fields that differ from the defaults. `paper` is the defaults.
        has_seen: Public data sets behind its weights or its own training, for the contamination flag.
        knowledge: What it is given beyond the K normal images; methods that know more never share a rank. The runner
            offers `ABNORMAL_SUPPORTS` and `SOURCE_ANOMALIES` to nobody who doesn't name them here; see `knowledge_of`.
        trains: Whether `pretrain` does anything, so that sources have to be there; not where the config says
            `trained_on="support"`.
        deviations: Where it leaves the paper, each with its reason.
        member: For a family of methods: from what stands behind the colon in `family:member` to that method's record,
            whose name is the whole. The family itself can't be run.
        file_px: Per preset the size of the prepared files that it is meant for, where another one changes what the
            paper does: images are then resized a second time, and `medfsad run` says so.
        fewest_shots: Support images without which it can't be adapted; cells of fewer are absent.
        grid: Per field of the config the values among which `medfsad tune` chooses unless told others.
        controls: Settings by a name, as in `teacher alone`, whose scores show what training adds; they train nothing.
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
    file_px: Mapping[str, int] = field(default_factory=dict)
    fewest_shots: int = 1
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    controls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def knows(self, kind: str) -> bool:
        """Whether `knowledge` names this kind."""
        return kind in self.knowledge.split(", ")
