"""The result row: everything that is said of one method on one target at K shots. Closed, versioned, unrounded.

Schema 2 names what schema 1 called `contaminated`, `lint` and `operating`; rows of schema 1 are read and upgraded.
What becomes the name of a file or a folder (method, target, run id) is of a closed form: a row may come from anybody.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.thresholds import Threshold
from medfsad_bench.info import METHOD_NAME, HoldOut, Protocol
from medfsad_bench.store.composition import FEWEST_EFFECTIVE_GROUPS

ROW_SCHEMA = 2
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$"


class Row(BaseModel):
    """One method, target, K and training seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row_schema: Literal[2] = Field(default=2, alias="schema")
    run_id: str = Field(pattern=_FILE_NAME)
    benchmark: str = Field(pattern=_FILE_NAME)
    allowed: tuple[str, ...] = ()  # faults of the target's file; such a row isn't the benchmark's
    protocol: Protocol
    hold_out: HoldOut
    method: str = Field(pattern=f"^{METHOD_NAME}$")
    method_version: str
    preset: str
    config: dict[str, Any]
    settings_chosen_on: tuple[str, ...] = ()  # other sets, by `medfsad tune`; empty for settings by hand
    settings_grid: dict[str, list[Any]] = {}  # among which values, by setting
    weights_digest: str
    knowledge: str
    has_seen_target: bool | Literal["unknown"]  # whether the target's images are behind the method's weights
    target: str = Field(pattern=r"^[a-z0-9_]+$")
    target_version: str
    organ: str
    modality: str
    size_px: int
    membership_digest: str
    content_digest: str
    sources: dict[str, str]  # membership digests by name
    trained_shots: int | None = None
    shots: int
    draws: int
    seed: int
    contaminated_supports: int = Field(default=0, ge=0)  # of the K, anomalies that the method isn't told of
    n_normal: int
    n_anomalous: int
    n_groups: int
    effective_groups: dict[Literal["normal", "anomalous"], float] = {}  # of the test, by class; older rows lack it
    n_unscored: int = 0  # test images that the protocol left out
    n_reserved: int = 0  # test images that share a group with an abnormal or contaminated support, so are no queries
    selected_epoch: int | None = None  # picked by test AUROC, under protocol published
    metrics: dict[str, Estimate]
    secondary: dict[str, Estimate] = {}
    absent: dict[str, str] = {}  # metric → why it isn't there
    thresholds: dict[str, Threshold] = {}  # that were set without anomalies
    pixel_mode: Literal["exact", "streamed"] | None = None
    checks: dict[str, str] = {}  # protocol check → "passed", "not checked: why", "flagged: why" or what failed
    submitted: bool = False  # scores came from outside: no clock, and nothing was rerun
    pretrain_s: float | None = None
    adapt_s: float | None = None  # median over draws
    score_ms_per_image: float | None = None  # median over draws, so without features that are computed once for all
    peak_memory_mb: float | None = None  # of the process, other cells of the sweep included
    device: str | None = None
    threads: tuple[int, ...] = ()  # of the CPU that scored; several where a run was taken up with another number
    package_version: str
    date: str
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> bool:
        """Whether the row is ranked: strict protocol, surely unseen target, run here, checks passed."""
        doubts = self.has_seen_target is not False or self.submitted or self.warnings or self.failed_checks
        return self.protocol == "strict" and not doubts

    @property
    def is_small(self) -> bool:
        """Whether a class of the test has too few groups for a mean over targets."""
        return any(groups < FEWEST_EFFECTIVE_GROUPS for groups in self.effective_groups.values())

    @property
    def failed_checks(self) -> dict[str, str]:
        """Protocol checks that failed, each with its reason."""
        harmless = ("passed", "not checked", "flagged")
        return {check: outcome for check, outcome in self.checks.items() if not outcome.startswith(harmless)}

    def dump(self) -> dict[str, Any]:
        """As written to JSON; without what it lacks of contaminated supports, chosen settings, groups, threads."""
        content = self.model_dump(mode="json", by_alias=True)
        if not self.effective_groups:
            del content["effective_groups"]
        if not self.threads:
            del content["threads"]
        for name in ("contaminated_supports", "settings_chosen_on", "settings_grid"):
            if not content[name]:
                del content[name]
        return content


def parse_row(text: str, *, where: str) -> Row:
    """A row from its JSON, upgraded if it is of an older schema.

    Args:
        text: JSON of one row.
        where: File, and line, for the message.

    Raises:
        ResultsError: If it's no JSON, or no row of a known schema.
    """
    try:
        content = json.loads(text)
        return Row.model_validate(_upgraded(content) if isinstance(content, dict) else content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    except ValueError as error:
        faults = f"no JSON: {error}"
    raise ResultsError(
        f"{where}: not a result row of schema {ROW_SCHEMA} or older ({faults}). Remove it, and run the cell or submit "
        "its scores again."
    )


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 under the names of schema 2; two of its checks are one now."""
    if content.get("schema", 1) != 1:
        return content
    old = dict(content)
    checks = dict(old.pop("lint", {}))
    seen = checks.pop("contamination", "passed")
    if seen.startswith("flagged") and checks.get("unseen", "passed").startswith(("passed", "not checked")):
        checks["unseen"] = seen
    renamed = {"has_seen_target": old.pop("contaminated", False), "thresholds": old.pop("operating", {})}
    return {**old, **renamed, "schema": 2, "checks": checks}
