"""What a method knows beyond K normal images: offered to those alone that declare it, ranked in a track of its own."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from test_runner import TOY, Toy, ToyConfig, cell_of

from medfsad_bench.board.accepted import rows_in_runs
from medfsad_bench.board.groups import groups
from medfsad_bench.episodes import Episodes
from medfsad_bench.episodes.abnormal import GROUPS, abnormal_candidates
from medfsad_bench.errors import MethodError
from medfsad_bench.info import ABNORMAL_SUPPORTS, SOURCE_ANOMALIES, TEXT, MethodInfo, knowledge_of
from medfsad_bench.method import AbnormalShotMethod, ImageSource, LabelledSource, RunContext, Scorer, Scores
from medfsad_bench.results.protocol_checks import check_supports
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset
from medfsad_bench.testing import check_method


class Both(AbnormalShotMethod):
    """Nearer to the mean of the abnormal supports than to that of the normal ones; keeps what it was shown."""

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        self.shown: list[torch.Tensor] = []

    def adapt_to_both(self, support: torch.Tensor, abnormal: torch.Tensor, context: RunContext) -> Scorer:
        self.shown.append(abnormal)
        normal, bad = support.mean(0), abnormal.mean(0)
        return lambda images: Scores(pixel=(images - normal).abs().mean(1) - (images - bad).abs().mean(1))


BOTH = dataclasses.replace(TOY, name="both", build=Both, knowledge=knowledge_of(ABNORMAL_SUPPORTS))


class Ran(NamedTuple):
    """A finished run, and the abnormal supports that its method was shown, one batch a draw."""

    cell: Cell
    row: Row
    folder: Path
    shown: list[torch.Tensor]


@pytest.fixture(scope="module")
def ran(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run of `both`, on the set without masks."""
    both = Both(ToyConfig())
    info = dataclasses.replace(BOTH, build=lambda _: both)
    cell = without_masks(info, own_data, tmp_path_factory.mktemp("runs"))
    row, _ = Runner("cpu").run(cell)
    return Ran(cell, row, cell.options.runs / cell.run_id, both.shown)


def without_masks(info: MethodInfo, data: Path, runs: Path, **options: Any) -> Cell:
    return cell_of(info, data, runs, target="ward_b", draws=2, **options)


def bytes_of(images: torch.Tensor) -> list[bytes]:
    return [(image * 255).round().byte().permute(1, 2, 0).contiguous().numpy().tobytes() for image in images]


def test_the_same_knowledge_is_the_same_track_in_whatever_order_it_is_named() -> None:
    assert knowledge_of(TEXT, ABNORMAL_SUPPORTS) == knowledge_of(ABNORMAL_SUPPORTS, TEXT)
    assert BOTH.knows(ABNORMAL_SUPPORTS)
    assert not BOTH.knows(TEXT)
    assert not TOY.knows(ABNORMAL_SUPPORTS)


def test_abnormal_supports_are_anomalous_test_images_and_no_group_of_theirs_is_a_query(ran: Ran) -> None:
    cell, row, folder, shown = ran
    target, scores = cell.target, RunFolder(folder).scores()
    test = target.table[target.table["split"] == "test"]
    pixels = {target.images(np.array([index])).tobytes(): index for index in test.index}
    taken = {pixels[content] for batch in shown for content in bytes_of(batch)}
    assert all(len(batch) == cell.shots for batch in shown)
    assert (test.loc[sorted(taken), "label"] == 1).all()
    assert not set(test.loc[sorted(taken), "group"]) & set(scores["group"])
    assert row.n_reserved == len(test) - scores["index"].nunique() == 2, "a quarter of ten groups"
    assert (row.n_normal, row.n_anomalous, row.n_unscored) == (12, 8, 0)
    assert set(row.checks.values()) == {"passed"}
    assert rescored(RunFolder(folder)) == row


def test_the_lint_sees_abnormal_supports(ran: Ran) -> None:
    """A run that left their groups among its queries would fail, and again whenever it is rescored."""
    cell, _, folder, _ = ran
    kept = RunFolder(folder).calibration()
    listed = kept[kept["kind"] == "abnormal"]
    assert len(listed) == cell.options.draws * cell.shots
    assert listed["score"].isna().all()
    scores = RunFolder(folder).scores()
    leaky = scores.assign(group=[listed["group"].iloc[0], *scores["group"].iloc[1:]])
    assert (
        "1 group(s) are both support and query"
        in check_supports(kept["group"].tolist(), set(leaky["group"]))["supports"]
    )


def test_queries_are_the_same_for_every_k_and_supports_are_nested(own_data: Path) -> None:
    dataset = Dataset(own_data / "own" / "ward_a-0.0.0-64px.h5")
    at_one, at_two = (Episodes(dataset, shots, abnormal=True) for shots in (1, 2))
    for draw in range(10):
        fewer, more = at_one.abnormal_support(draw), at_two.abnormal_support(draw)
        assert fewer.tolist() == more[:1].tolist()
        assert len(set(more.tolist())) == 2
        assert set(more.tolist()) <= set(at_one.reserved.tolist())
    assert len({at_one.abnormal_support(draw)[0] for draw in range(10)}) == 2, "draws differ"
    assert at_one.queries.tolist() == at_two.queries.tolist()


def test_a_lending_group_takes_its_normal_images_out_of_the_queries_too(own_data: Path) -> None:
    """Hand-made groups: every anomalous image shares its group with one more image."""
    dataset = Dataset(own_data / "own" / "ward_a-0.0.0-64px.h5")
    test, labels = dataset.indices("test"), dataset.table["label"].to_numpy()
    anomalous, normal = test[labels[test] == 1], test[labels[test] == 0]
    for bad, good in zip(anomalous, normal, strict=False):
        dataset.table.loc[[bad, good], "group"] = f"patient {bad}"
    episodes = Episodes(dataset, 2, abnormal=True)
    assert len(abnormal_candidates(dataset)) == min(GROUPS, len(anomalous) // 4)
    assert sorted(labels[episodes.reserved]) == [0, 0, 1, 1]
    assert sorted([*episodes.queries, *episodes.reserved]) == sorted(test)


def test_a_target_with_too_few_anomalous_groups_is_an_absent_cell_with_the_reason(
    own_data: Path, tmp_path: Path
) -> None:
    assert "can spare 2 anomalous groups" in without_masks(BOTH, own_data, tmp_path, shots=3).absent


def test_nobody_gets_abnormal_supports_without_declaring_them(own_data: Path, tmp_path: Path) -> None:
    secret = dataclasses.replace(BOTH, knowledge="normals")
    with pytest.raises(MethodError, match="no abnormal ones"):
        Runner("cpu").run(without_masks(secret, own_data, tmp_path / "a"))
    idle = dataclasses.replace(TOY, knowledge=knowledge_of(ABNORMAL_SUPPORTS))
    with pytest.raises(MethodError, match="takes none"):
        Runner("cpu").run(without_masks(idle, own_data, tmp_path / "b"))
    check_method(Both(ToyConfig()))


class Learner(Toy):
    """Keeps the sources that it is trained on."""

    seen: dict[str, Any] = {}  # noqa: RUF012

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        Learner.seen = dict(sources)


@pytest.mark.parametrize("declared", [False, True])
def test_labelled_anomalies_of_other_sets_are_shown_to_who_declares_them(
    own_data: Path, tmp_path: Path, declared: bool
) -> None:
    knowledge = knowledge_of(SOURCE_ANOMALIES) if declared else "normals"
    info = dataclasses.replace(TOY, name="learner", build=Learner, trains=True, knowledge=knowledge)
    Runner("cpu").run(without_masks(info, own_data, tmp_path))
    (name, source), *others = Learner.seen.items()
    assert (name, others) == ("ward_a", []), "never the target's"
    assert isinstance(source, LabelledSource) == declared
    if isinstance(source, LabelledSource):
        dataset = Dataset(own_data / "own" / "ward_a-0.0.0-64px.h5")
        rows = [row for row in dataset.indices("test") if dataset.table["label"][row] == 1]
        anomalies = source.anomalies[torch.arange(len(source.anomalies))].permute(0, 2, 3, 1).numpy()
        assert np.array_equal(anomalies, dataset.images(np.array(rows)))
        assert source.anomalies.digest != source.digest, "or a cache would take one for the other"


def test_methods_with_different_knowledge_never_share_a_rank(own_data: Path, ran: Ran) -> None:
    runs = ran.cell.options.runs
    for info in (TOY, dataclasses.replace(TOY, name="reader", knowledge=knowledge_of(TEXT))):
        Runner("cpu").run(without_masks(info, own_data, runs))
    board = {group.knowledge: group for group in groups(rows_in_runs(runs))}
    assert {name: [line.method for line in group.lines] for name, group in board.items()} == {
        "normals": ["toy"],
        "text": ["reader"],
        "abnormal supports": ["both"],
    }
    assert all(line.rank == 1 for group in board.values() for line in group.lines)
    assert board["abnormal supports"].title.endswith("knows abnormal supports")
    assert "knows" not in board["normals"].title
