"""What a run's name stands for, and whether a row says the same as the run that it is of.

`config.json` of a run holds what determines its scores, whose hash ends the run's name; beside it `states`, the facts
that its row repeats, and `seen`, what the check `unseen` was made from. Nothing here shows that the run was made as it
says: whoever writes all files of a folder anew can make them agree. That is what `medfsad reproduce` is for.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from medfsad_bench.errors import MethodError
from medfsad_bench.registry import installed_names, method_info
from medfsad_bench.results.protocol_checks import RERUNS, check_target
from medfsad_bench.results.row import Row

STATES, SEEN, RUN_ID = "states", "seen", "run_id"
_OF_TRAINING = {"method": "method", "method_version": "method_version", "seed": "seed", "weights": "weights_digest"}
_OF_IDENTITY = ("config", "benchmark", "target", "membership_digest", "content_digest", "hold_out", "protocol")
_COUNTS = ("shots", "draws")


def digest_of(content: Any) -> str:
    """SHA-256 of JSON with sorted keys; the same for a content and for what its JSON is read as."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def run_id_of(identity: Mapping[str, Any]) -> str:
    """Name of a run's folder: readable, and a hash of all that determines its scores."""
    method = str(identity["training"]["method"]).replace(":", "-")
    contaminated = identity.get("contaminated", {}).get("supports", 0)
    shots = f"{identity['shots']}shot" + (f"-{contaminated}contaminated" if contaminated else "")
    return f"{method}-{identity['target']}-{shots}-{digest_of(identity)[:12]}"


def submission_id_of(about: Mapping[str, Any], target: str, membership_digest: str, scores: pd.DataFrame) -> str:
    """Name of a submission's folder: a hash of what is said of it, of the set, and of the scores themselves."""
    identity = hashlib.sha256(json.dumps([membership_digest, dict(about)], sort_keys=True).encode())
    identity.update(scores["score"].to_numpy(np.float64).tobytes())
    return f"{about['method']}-{target}-{about['shots']}shot-{identity.hexdigest()[:12]}"


def identity_faults(row: Row, config: Mapping[str, Any], scores: pd.DataFrame) -> list[str]:
    """In what a row says something else than the `config.json` of its run; empty if they agree."""
    try:
        return list(_faults(row, config, scores))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [f"the config isn't that of a run ({type(error).__name__}: {error})"]


def statement_of_choice(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of how its settings were chosen; nothing where that was by hand.

    Args:
        chosen: `on`, the membership digests of the sets by name, and `grid`, the values by setting; or empty.
    """
    if not chosen:
        return {}
    return {"settings_chosen_on": sorted(chosen["on"]), "settings_grid": json.loads(json.dumps(chosen["grid"]))}


def _faults(row: Row, config: Mapping[str, Any], scores: pd.DataFrame) -> Iterator[str]:
    if STATES not in config or SEEN not in config:
        yield "the run's config is of an older release and doesn't state what the row repeats"
        return
    content = {key: value for key, value in config.items() if key not in (RUN_ID, STATES, SEEN)}
    if row.submitted:
        about = {key: value for key, value in content.items() if key != "submitted"}
        run_id = submission_id_of(about, row.target, row.membership_digest, scores)
        expected = {"method": about["method"], "method_version": about["version"], "seed": about["seed"]}
        expected |= {name: about[name] for name in ("shots", "hold_out", "knowledge")}
    else:
        run_id = run_id_of(content)
        expected = {field: content["training"][name] for name, field in _OF_TRAINING.items()}
        expected |= {name: content[name] for name in (*_OF_IDENTITY, *_COUNTS)}
        expected["contaminated_supports"] = content.get("contaminated", {}).get("supports", 0)
        expected |= statement_of_choice(content.get("chosen", {})) or {"settings_chosen_on": [], "settings_grid": {}}
        if not content["checkpoint"] and set(content["training"]["sources"]) != set(row.sources):
            yield "sources"
    if {run_id, config[RUN_ID]} != {row.run_id}:
        yield f"run_id (the config gives {run_id})"
    stated = row.model_dump(mode="json", by_alias=True)
    for field in dict(sorted((expected | config[STATES]).items())):
        values = [source[field] for source in (expected, config[STATES]) if field in source]
        if any(json.loads(json.dumps(value)) != stated.get(field) for value in values):
            yield field
    unseen = check_target(
        target=row.target,
        method=row.method,
        sources=list(row.sources),
        chosen_on=row.settings_chosen_on,
        **config[SEEN],
    )["unseen"]
    flagged = "unknown" if config[SEEN]["unknown"] else unseen.startswith("flagged")
    if off := [name for name, values in row.settings_grid.items() if row.config.get(name) not in values]:
        yield f"settings_grid, which lacks the config's {off[0]}"
    if unseen != row.checks.get("unseen"):
        yield "the check unseen"
    if flagged != row.has_seen_target:
        yield "has_seen_target"
    if row.protocol == "strict" and not row.submitted:
        yield from (f"the check {name}, which was left out" for name in RERUNS if _is_open(row, name))
        yield from _registry_faults(row, config[SEEN]["has_seen"])


def _is_open(row: Row, check: str) -> bool:
    return row.checks.get(check, "not checked").startswith("not checked")


def _registry_faults(row: Row, has_seen: list[str]) -> Iterator[str]:
    """Where the method is installed in the row's version, its record says what it knows and what it has seen."""
    if row.method.partition(":")[0] not in installed_names():
        return
    try:
        info = method_info(row.method)
    except MethodError:
        return
    if info.version != row.method_version:
        return
    if info.knowledge != row.knowledge:
        yield "knowledge"
    if not set(has_seen) <= set(info.has_seen) or (row.benchmark != "own" and set(has_seen) != set(info.has_seen)):
        yield "has_seen"
