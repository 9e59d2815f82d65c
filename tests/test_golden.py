"""Nothing moves by itself: digests of prepared phantoms, of scores and of estimates are those that were committed."""

import json
from pathlib import Path
from typing import Any

import golden
import pytest

COMMITTED = Path(__file__).with_name("golden.json")


@pytest.mark.slow
def test_files_scores_and_estimates_are_the_committed_ones(tmp_path: Path) -> None:
    """A change that is meant to move them writes the digests anew, and CHANGELOG.md says old and new.

    `python tests/golden.py write --quick tests/golden.json`. On another kind of machine last bits differ: there
    memberships have to be the same, and AUROCs nearly.
    """
    committed = json.loads(COMMITTED.read_text("utf-8"))
    computed = golden.quick_digests(tmp_path)
    if committed.pop("machine") == golden.machine():
        assert golden.differing(committed, computed) == []
        return
    members = [{name: d["membership_digest"] for name, d in run["prepared"].items()} for run in (committed, computed)]
    assert members[0] == members[1]
    expected, aurocs = _aurocs(committed), _aurocs(computed)
    assert aurocs == pytest.approx(expected, abs=0.05)


def _aurocs(digests: dict[str, Any]) -> dict[str, float]:
    """By what is readable of the run's id: the rest of it stands for decoder versions, too."""
    return {run_id.rpartition("-")[0]: float(run["auroc"]) for run_id, run in digests["runs"].items()}
