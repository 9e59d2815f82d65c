"""The one place where a row is put together: from what was measured, when a run ends and whenever it is recomputed."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from medfsad_bench import __version__
from medfsad_bench.estimates.of_run import estimates_of_run
from medfsad_bench.results.protocol_checks import checks_of_measurements, checks_of_target
from medfsad_bench.results.row import Row, target_facts
from medfsad_bench.results.run_folder import Measurements
from medfsad_bench.store import Dataset


def assemble_row(
    measured: Measurements,
    dataset: Dataset,
    *,
    absent: Mapping[str, str],
    has_seen: Sequence[str],
    unknown_training: str = "",
    **facts: Any,
) -> Row:
    """The row of a run that was just made, or submitted.

    Args:
        measured: What the run measured.
        dataset: The target.
        absent: Metrics that can't be had, with the reason.
        has_seen: Public sets behind the method's weights.
        unknown_training: Why it can't be known what the method was trained on; empty if it can.
        facts: The row's other fields by name: method, protocol, sources, shots, draws, seed, clocks, ….
    """
    target = target_facts(dataset, measured.queries)
    computed = _computed(measured, {**facts, **target}, absent)
    of_target = checks_of_target(
        dataset, method=facts["method"], sources=list(facts["sources"]), has_seen=has_seen, unknown=unknown_training
    )
    return Row(
        **target,
        **facts,
        **{**computed, "checks": {**computed["checks"], **of_target}},
        has_seen_target=of_target["unseen"].startswith("flagged"),
        package_version=__version__,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def reassembled(row: Row, measured: Measurements) -> Row:
    """The row with every estimate and every check of scores recomputed; a sound row is equal to it.

    What can't be recomputed from scores (clocks, digests, what the method was trained on) is taken over.
    """
    fields = row.model_dump(by_alias=True)
    computed = _computed(measured, fields, row.absent)
    return Row.model_validate({**fields, **computed, "checks": {**row.checks, **computed["checks"]}})


def _computed(measured: Measurements, facts: Mapping[str, Any], absent: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a row that follow from what was measured."""
    estimates = estimates_of_run(
        measured.scores,
        measured.pixels,
        measured.calibration,
        target=facts["target"],
        seed=facts["seed"],
        absent=absent,
    )
    checks = checks_of_measurements(
        measured,
        target=facts["target"],
        protocol=facts["protocol"],
        queries=facts["n_normal"] + facts["n_anomalous"],
        draws=facts["draws"],
        seed=facts["seed"],
    )
    return {**estimates, "checks": checks}
