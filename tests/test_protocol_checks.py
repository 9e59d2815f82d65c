"""Protocol checks: every check finds the fault it is for, and a failed one keeps the row off the board."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_runner import TOY, Toy, cell_of

from medfsad_bench.board.accepted import accept, rows_in_runs
from medfsad_bench.board.groups import groups
from medfsad_bench.errors import ResultsError
from medfsad_bench.method import Scorer, Scores
from medfsad_bench.results.protocol_checks import (
    PASSED,
    RERUNS,
    check_episodes,
    check_reruns,
    check_scores,
    check_supports,
    check_target,
    partners_of,
)
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset


def scores_of(draws: int = 2, queries: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    index = np.tile(np.arange(queries), draws)
    columns = {"index": index, "anomalous": index % 3 == 0, "group": index.astype(str)}
    return pd.DataFrame({"draw": np.repeat(np.arange(draws), queries), **columns, "score": rng.normal(size=len(index))})


def test_sound_scores_pass() -> None:
    assert set(check_scores(scores_of(), queries=30, draws=2).values()) == {PASSED}


@pytest.mark.parametrize(
    ("spoil", "check", "message"),
    [
        (lambda s: s[:-1], "count", "draw 1: 29 scores of 29 queries, expected 30"),
        (lambda s: s[s["draw"] == 0], "count", "scores of 1 draws, expected 2"),
        (lambda s: pd.concat([s, s[:1]]), "count", "draw 0: 31 scores of 30"),
        (lambda s: s.assign(score=s["score"].where(s["index"] != 3)), "finite", "2 of 60 scores"),
        (lambda s: s.assign(score=s["score"].where(s["draw"] == 1, 0.5)), "not constant", "draw 0"),
    ],
)
def test_faulty_scores_are_named(spoil: Any, check: str, message: str) -> None:
    assert message in check_scores(spoil(scores_of()), queries=30, draws=2)[check]


def test_a_metric_that_peeks_is_found_by_shuffled_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is of the metric itself: one that looks at anything but scores and labels doesn't give 0.5."""
    monkeypatch.setattr("medfsad_bench.results.protocol_checks.auroc", lambda curve: 0.5 + 0.1 * (curve.positives > 0))
    assert "0.600, expected 0.5" in check_scores(scores_of(), queries=30, draws=2)["shuffled labels"]


@pytest.mark.parametrize("rerun", RERUNS)
def test_a_score_that_moved_is_found(rerun: str) -> None:
    scores = scores_of()
    first = scores[scores["draw"] == 0][:8]
    reruns = pd.concat([first[["draw", "index", "score"]].assign(rerun=name) for name in RERUNS])
    assert set(check_reruns(reruns, scores).values()) == {PASSED}
    moved = reruns.assign(score=reruns["score"] + 0.1 * ((reruns["rerun"] == rerun) & (reruns["index"] == 5)))
    verdicts = check_reruns(moved, scores)
    assert "scores depend on" in verdicts[rerun]
    assert "1 differ" in verdicts[rerun]
    assert [name for name, what in verdicts.items() if what != PASSED] == [rerun]


def test_scores_without_a_method_say_what_was_not_checked() -> None:
    assert all("not checked" in what for what in check_reruns(pd.DataFrame({"rerun": []}), scores_of()).values())


def test_a_group_on_both_sides_is_found() -> None:
    assert check_supports(["a", "b"], set(scores_of()["group"])) == {"supports": PASSED}
    assert "1 group(s) are both" in check_supports(["a", "7"], set(scores_of()["group"]))["supports"]


def test_training_on_the_target_fails_and_having_seen_it_is_flagged() -> None:
    trained = check_target(target="lgg", method="m", sources=["rsna", "brats"], has_seen=["lgg"], partners=["brats"])
    assert trained == {"unseen": "trained on brats, which the target lgg must not share"}
    seen = check_target(target="lgg", method="m", sources=["rsna"], has_seen=["lgg"], partners=["brats"])
    assert seen == {"unseen": "flagged: weights or training of m have seen lgg"}
    clean = check_target(target="lgg", method="m", sources=["rsna"], has_seen=["imagenet-1k"], partners=["brats"])
    assert clean == {"unseen": PASSED}
    unknown = check_target(target="lgg", method="m", sources=[], has_seen=[], partners=[], unknown="who knows")
    assert unknown == {"unseen": "not checked: who knows"}


def test_partners_are_found_from_either_manifest() -> None:
    assert "odir_glaucoma" in partners_of("odir_dr")
    assert "odir_dr" in partners_of("odir_glaucoma")
    assert partners_of("ward", ["ward_b"]) == ("ward_b",)


def test_a_membership_that_was_changed_is_found(own_data: Path) -> None:
    dataset = Dataset(own_data / "own" / "ward_a-0.0.0-64px.h5")
    assert check_episodes(dataset) == {"episodes": PASSED}
    dataset.table.loc[0, "group"] = "other"
    assert "isn't the one its digest states" in check_episodes(dataset)["episodes"]


class Leaky(Toy):
    """Divides by the batch's largest map value, as published code does."""

    def adapt(self, support: torch.Tensor, context: Any) -> Scorer:
        mean = support.mean(0)

        def score(images: torch.Tensor) -> Scores:
            maps = (images - mean).abs().mean(1)
            return Scores(pixel=maps / maps.max())

        return score


def test_a_clean_run_passes_and_ranks(own_data: Path, tmp_path: Path) -> None:
    row, _ = Runner("cpu").run(cell_of(TOY, own_data, tmp_path))
    assert set(row.checks.values()) == {PASSED}
    assert row.ranks


def test_a_run_whose_scores_depend_on_the_batch_stays_off_the_board_and_says_why(
    own_data: Path, tmp_path: Path
) -> None:
    leaky = dataclasses.replace(TOY, name="leaky", build=Leaky)
    cells = [cell_of(info, own_data, tmp_path / "runs") for info in (TOY, leaky)]
    clean, row = (Runner("cpu").run(cell)[0] for cell in cells)
    assert "other images of the batch" in row.failed_checks["batch"]
    assert not row.ranks
    (board,) = groups(rows_in_runs(tmp_path / "runs"))
    assert {line.method: line.rank for line in board.lines} == {"toy": 1, "leaky": None}
    assert all("fails the check " in line.note for line in board.lines if line.method == "leaky")
    with pytest.raises(ResultsError, match=r"kept off the board.*scores depend on"):
        accept(tmp_path / "runs" / row.run_id, tmp_path / "results")
    assert accept(tmp_path / "runs" / clean.run_id, tmp_path / "results") == clean


def test_reruns_are_checked_again_when_a_run_is_rescored(own_data: Path, tmp_path: Path) -> None:
    """A row that hides a failed check isn't what its files give."""
    row, _ = Runner("cpu").run(cell_of(dataclasses.replace(TOY, build=Leaky), own_data, tmp_path))
    folder = tmp_path / row.run_id
    hidden = json.loads((folder / "row.json").read_text("utf-8"))
    hidden["checks"] = dict.fromkeys(hidden["checks"], PASSED)
    (folder / "row.json").write_text(json.dumps(hidden), "utf-8")
    with pytest.raises(ResultsError, match=r"batch.* of its row can't be recomputed"):
        accept(folder, tmp_path / "results")
    assert rescored(RunFolder(folder)) == row


def test_supports_are_scored_by_a_detector_of_the_others(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path)
    row, _ = Runner("cpu").run(cell)
    kept = RunFolder(tmp_path / row.run_id).calibration()
    own = kept[(kept["set"] == "ward_a") & (kept["draw"] == 1)]
    images = torch.from_numpy(cell.target.images(cell.target.episodes[1][:2])).permute(0, 3, 1, 2).float() / 255
    from medfsad_bench.runner.scoring import image_scores

    by_hand = [
        image_scores(Toy(cell.config).adapt(images[1 - i : 2 - i], None), images[i : i + 1])[0]  # type: ignore[arg-type]
        for i in range(2)
    ]
    assert own["score"].tolist() == pytest.approx(by_hand, rel=1e-5)
    assert set(kept["set"]) == {"ward_a", "ward_b"}
    reruns = RunFolder(tmp_path / row.run_id).reruns()["rerun"].value_counts().to_dict()
    assert reruns == {"order": 12, "batch": 52, "duplicates": 16, "alone": 12, "perturbed": 24, "memory": 12}
