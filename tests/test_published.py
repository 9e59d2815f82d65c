"""Protocol `published`: the reference's test loop to the letter, marked, unranked, and refused by the contract."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from test_runner import TOY, Toy, cell_of

from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.errors import MethodError
from medfsad_bench.method import Method, RunContext, Scorer, Scores
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.registry import configure, method_info
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.influence import leave_one_out
from medfsad_bench.runner.protocols import LINES, PUBLISHED, STRICT, Habits, _highest, compare_protocols
from medfsad_bench.runner.published import BATCH, published_scores, reference_size, smoothed_across
from medfsad_bench.runner.runner import Runner
from medfsad_bench.testing import check_method

CPU = torch.device("cpu")
QUICK = {"steps": 5, "size_px": 64, "batch_size": 4, "train_shots": 2}  # three steps an epoch: two epochs


class AsPublished(Method):
    """A method whose scorer smooths across the batch that it's given, as the published loop does."""

    def __init__(self, method: Method) -> None:
        self.method = method

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        scorer = self.method.adapt(support, context)

        def score(images: torch.Tensor) -> Scores:
            maps = scorer(images).pixel
            assert maps is not None
            return Scores(pixel=torch.from_numpy(smoothed_across(maps.numpy())))

        return score


def test_scores_are_those_of_a_literal_transcription_of_the_loop() -> None:
    maps = np.random.default_rng(4).random((41, 128, 128), np.float32)
    expected = []
    for batch in range(2):  # of 16; nine images are left over and dropped
        expected.append(gaussian_filter(maps[16 * batch : 16 * batch + 16], sigma=4))
    stack = np.concatenate(expected)
    by_hand = [(map_.max() - stack.min()) / (stack.max() - stack.min()) for map_ in stack]
    np.testing.assert_allclose(published_scores(maps), by_hand, rtol=1e-6)


def test_an_image_keeps_a_tenth_of_its_own_map() -> None:
    """In a batch of 16, nine tenths of a smoothed map come from the other images."""
    maps = np.zeros((BATCH, 128, 128), np.float32)
    maps[7] = 1
    smooth = smoothed_across(maps)
    assert smooth[7].mean() / smooth.sum(0).mean() == pytest.approx(0.1, abs=0.02)


def test_a_published_row_is_marked_and_never_ranks(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path, protocol="published", draws=1)
    row, _ = Runner("cpu").run(cell)
    assert (row.protocol, row.draws, row.ranks) == ("published", 1, False)
    assert (row.n_anomalous, row.n_normal, row.n_unscored) == (10, 6, 6), "16 of 22; the last class loses"
    assert "published" in row.absent["pixel_auroc"]
    assert "protocol: published" in as_markdown(groups([row]))
    assert rescored(RunFolder(tmp_path / cell.run_id)) == row
    assert row.checks["batch"] == "not checked: protocol published"


def test_the_order_is_anomalous_first_and_by_id(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(TOY, own_data, tmp_path, protocol="published", draws=1)
    Runner("cpu").run(cell)
    scores = RunFolder(tmp_path / cell.run_id).scores()
    assert scores["anomalous"].tolist() == [True] * 10 + [False] * 6
    assert scores["id"].tolist()[:10] == sorted(scores["id"].tolist()[:10])


def test_the_epoch_with_the_best_test_auroc_is_the_one_that_counts(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(
        method_info("d24fad"), own_data, tmp_path, protocol="published", draws=1, settings=QUICK
    )  # fmt: skip
    row, _ = Runner("cpu").run(cell)
    folder = tmp_path / cell.run_id
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    by_epoch = {event["number"]: event["test_auroc"] for event in events if event["event"] == "epoch"}
    assert len(by_epoch) == 2
    assert row.selected_epoch == max(by_epoch, key=lambda number: (by_epoch[number], -number))
    assert row.metrics["image_auroc"].value == max(by_epoch.values())


def test_a_method_without_maps_is_refused(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(method_info("chance"), own_data, tmp_path, protocol="published", draws=1)
    with pytest.raises(MethodError, match="gives none"):
        Runner("cpu").run(cell)


def test_a_trained_method_that_tells_no_epoch_is_refused(own_data: Path, tmp_path: Path) -> None:
    import dataclasses

    class Silent(Toy):
        def pretrain(self, sources: object, context: RunContext) -> None:
            """Train without a word."""

    info = dataclasses.replace(TOY, build=Silent, trains=True)
    with pytest.raises(MethodError, match="epoch_end"):
        Runner("cpu").run(cell_of(info, own_data, tmp_path, protocol="published", draws=1))


def test_the_contract_refuses_the_published_path_and_passes_the_strict_one() -> None:
    info = method_info("d24fad")
    method = info.build(configure(info, preset="quick", settings={"size_px": "64"}))
    check_method(method)
    with pytest.raises(MethodError, match=r"order of the queries|batch"):
        check_method(AsPublished(method))


def test_each_habit_alone_lies_between_published_and_strict(own_data: Path, tmp_path: Path) -> None:
    """The lines are what their names say: recomputed here from the run of each protocol."""
    info = method_info("d24fad")
    compared = compare_protocols(
        cell_of(info, own_data, tmp_path, settings=QUICK), CPU, FeatureCache(CPU), progress=lambda *_: None
    )
    assert list(compared.figures) == list(LINES)
    published, _ = Runner("cpu").run(cell_of(info, own_data, tmp_path, protocol="published", draws=1, settings=QUICK))
    assert compared.figures["published"].value == pytest.approx(published.metrics["image_auroc"].value, abs=1e-12)
    assert compared.selected == published.selected_epoch
    strict_cell = cell_of(info, own_data, tmp_path, settings=QUICK)
    strict, _ = Runner("cpu").run(strict_cell)
    assert compared.figures["strict"].value == pytest.approx(strict.metrics["image_auroc"].value, abs=0.01)
    first = RunFolder(tmp_path / strict_cell.run_id).scores().query("draw == 0")
    alone = auroc_score(first["score"].to_numpy(), first["anomalous"].to_numpy(bool))
    assert compared.figures["strict, but one draw"].value == pytest.approx(alone, abs=0.01)


def test_each_line_changes_one_habit_of_its_family() -> None:
    for name, habits in LINES.items():
        family = PUBLISHED if name.startswith("published") else STRICT
        changed = [a != b for a, b in zip(dataclasses.astuple(habits), dataclasses.astuple(family), strict=True)]
        assert sum(changed) == (", but " in name), name
    assert len(LINES) == len(set(LINES.values())) == 2 * (1 + len(dataclasses.fields(Habits)))


def test_smoothing_across_and_the_maps_size_are_two_habits() -> None:
    """At the images' size both smoothings have the same σ on an image; at 128 px they are the published loop's."""
    maps = torch.from_numpy(np.random.default_rng(3).random((37, 32, 32), np.float32))
    at_128 = reference_size(maps)
    np.testing.assert_allclose(_highest(maps, 128, across=True), smoothed_across(at_128).max((1, 2)), rtol=1e-4)
    each = [gaussian_filter(single, sigma=4).max() for single in at_128]
    np.testing.assert_allclose(_highest(maps, 128, across=False), each, rtol=1e-4)
    alike = torch.ones(16, 1, 1) * maps[:1]
    for size_px in (64, 128):
        of_copies = [_highest(alike, size_px, across=across) for across in (False, True)]
        np.testing.assert_allclose(of_copies[0], of_copies[1], rtol=1e-5, err_msg="copies have nothing to mix")


def test_class_order_smoothing_lifts_a_weak_detector() -> None:
    """400 images a class whose binormal scores have a true AUROC of 0.76: in class order they part almost wholly."""
    rng = np.random.default_rng(0)
    label = np.arange(800) < 400
    means = rng.normal(0, 1, 800) + label
    maps = torch.from_numpy(means.astype(np.float32)).reshape(-1, 1, 1)
    assert auroc_score(means, label) == pytest.approx(0.76, abs=0.03)
    assert auroc_score(published_scores(reference_size(maps)), label) > 0.95


def test_scores_of_both_protocols_stand_side_by_side_in_one_folder(own_data: Path, tmp_path: Path) -> None:
    ids = {cell_of(TOY, own_data, tmp_path, protocol=name).run_id for name in ("strict", "published")}
    assert len(ids) == 2


def test_the_context_is_left_as_it_was(own_data: Path) -> None:
    """An epoch's evaluation doesn't disturb the training: the last epoch's weights are those of a strict run."""
    from medfsad_bench.runner.features import FeatureCache
    from medfsad_bench.runner.opened import OpenCell, opened
    from medfsad_bench.runner.published import raw_maps
    from medfsad_bench.runner.sources import DeviceSource

    cell = cell_of(method_info("d24fad"), own_data, Path("unused"), settings=QUICK)

    def look(run: OpenCell, _: int) -> None:
        raw_maps(run, 0)

    states = []
    for watched in (False, True):
        with opened(cell, CPU, FeatureCache(CPU), lambda *_: None) as run:
            if watched:
                run.context.on_epoch = partial(look, run)
            run.method.pretrain({s.name: DeviceSource(s, CPU) for s in cell.sources}, run.context)
            states.append(run.method.state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("stage", ["run", "influence", "protocols"])
def test_out_of_memory_is_one_paragraph_in_every_stage_that_computes(
    own_data: Path, tmp_path: Path, stage: str
) -> None:
    class Greedy(Toy):
        def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
            raise MemoryError("cannot allocate 900 GiB")

    cell = cell_of(dataclasses.replace(TOY, build=Greedy), own_data, tmp_path)
    stages: dict[str, Callable[[], object]] = {
        "run": lambda: Runner("cpu").run(cell),
        "influence": lambda: leave_one_out(cell, [0], CPU, FeatureCache(CPU), progress=lambda *_: None),
        "protocols": lambda: compare_protocols(cell, CPU, FeatureCache(CPU), progress=lambda *_: None),
    }
    with pytest.raises(MethodError, match=r"Out of memory on cpu \(cannot allocate 900 GiB\).*Lower"):
        stages[stage]()
