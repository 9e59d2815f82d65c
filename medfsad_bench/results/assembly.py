"""The one place where a row is put together: from what was measured, when a run ends and whenever it is recomputed."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from medfsad_bench import __version__
from medfsad_bench.estimates.of_run import estimates_of_run
from medfsad_bench.metrics.metric import BOX_METRICS, PIXEL_METRICS
from medfsad_bench.results.protocol_checks import (
    NOT_STRICT,
    check_episodes,
    check_reruns,
    check_scores,
    check_supports,
    check_target,
    seen_facts,
)
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import Measurements
from medfsad_bench.store import Dataset
from medfsad_bench.store.composition import compositions
from medfsad_bench.store.proof import benchmark_of


def assemble_row(measured: Measurements, stated: Mapping[str, Any]) -> Row:
    """The row of a run: what is stated of it, and every estimate and check that follows from what was measured.

    Args:
        measured: What the run measured.
        stated: The row's other fields by name, see `stated_fields`; those that follow from measurements are replaced.
    """
    scores, calibration = measured.scores, measured.calibration
    target, seed = stated["target"], stated["seed"]
    queries = scores[scores["draw"] == 0]
    anomalous = int(queries["anomalous"].sum())
    classes = zip(queries["anomalous"], queries["group"], strict=True)
    made_of = compositions(("test", label, group) for label, group in classes)
    groups = calibration.loc[calibration["set"] == target, "group"].tolist()
    checks = {
        **check_scores(scores, queries=len(queries), draws=stated["draws"], seed=seed),
        **(check_reruns(measured.reruns, scores) if stated["protocol"] == "strict" else NOT_STRICT),
        **check_supports(groups, set(scores["group"])),
    }
    computed = {
        "n_normal": len(queries) - anomalous,
        "n_anomalous": anomalous,
        "n_groups": int(queries["group"].nunique()),
        "effective_groups": {key.removeprefix("test "): of_class.effective_groups for key, of_class in made_of.items()},
        **estimates_of_run(scores, measured.pixels, calibration, target=target, seed=seed, absent=stated["absent"]),
        "checks": checks | {check: outcome for check, outcome in stated["checks"].items() if check not in checks},
    }
    return Row.model_validate({**stated, **computed})


def stated_fields(
    dataset: Dataset,
    *,
    no_pixels: str,
    has_seen: Sequence[str],
    unknown_training: str = "",
    **facts: Any,
) -> dict[str, Any]:
    """The fields of a row that don't follow from what was measured, by name.

    Args:
        dataset: The target.
        no_pixels: Why there are no pixel estimates; empty if there are.
        has_seen: Public sets behind the method's weights.
        unknown_training: Why it can't be known what the method was trained on; empty if it can.
        facts: Fields that are taken over: `facts_of_target`, method, protocol, sources, shots, draws, seed, clocks, ….
    """
    metrics = BOX_METRICS if dataset.attributes["mask_kind"] == "box" else PIXEL_METRICS
    unseen = check_target(
        target=dataset.name,
        method=facts["method"],
        sources=list(facts["sources"]),
        chosen_on=facts.get("settings_chosen_on", ()),
        **seen_facts(dataset, has_seen, unknown_training),
    )
    return {
        **facts,
        "absent": dict.fromkeys(metrics, no_pixels) if no_pixels else {},
        "checks": unseen | check_episodes(dataset),
        "has_seen_target": "unknown" if unknown_training else unseen["unseen"].startswith("flagged"),
        "package_version": __version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def facts_of_target(dataset: Dataset) -> dict[str, Any]:
    """What a row says of a target, by the row's names."""
    copied = ("organ", "modality", "size_px", "membership_digest", "content_digest")
    return {
        **{name: dataset.attributes[name] for name in copied},
        "benchmark": benchmark_of(dataset),
        "allowed": tuple(json.loads(dataset.attributes["allowed"])),
        "target": dataset.name,
        "target_version": dataset.attributes["version"],
    }


def reassembled(row: Row, measured: Measurements) -> Row:
    """The row with every estimate and every check of scores recomputed; a sound row is equal to it.

    What can't be recomputed from scores (clocks, digests, what the method was trained on) is taken over.
    """
    again = assemble_row(measured, row.model_dump(by_alias=True))
    if row.effective_groups:
        return again
    return again.model_copy(update={"effective_groups": {}})  # a row from before they were stated
