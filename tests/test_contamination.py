"""Contaminated supports: a track of its own, on its own queries; clean rows stay what they were."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_runner import TOY, ToyConfig, cell_of
from test_store import HEADER, toy_table

from medfsad_bench.board.accepted import accept, board_faults, rows_in_runs, write_pages
from medfsad_bench.board.groups import groups
from medfsad_bench.board.robustness import clean_and_contaminated, means, measure, write_picture
from medfsad_bench.episodes import Episodes
from medfsad_bench.episodes.contamination import contaminants, reserved_groups
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_json
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Method, RunContext, Scorer, Scores
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.paired import paired_difference
from medfsad_bench.metrics.resample import group_keys
from medfsad_bench.results.protocol_checks import PASSED
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.results.tables import scores_table
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.influence import leave_one_out, write_influences
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.plan import Cell, RunOptions
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.store import Dataset
from medfsad_bench.store.writer import write_store

CPU = torch.device("cpu")


class Nearest(Method):
    """Distance of the mean grey to the nearest support's."""

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        support_means = support.mean((1, 2, 3))
        return lambda images: Scores(image=(images.mean((1, 2, 3))[:, None] - support_means).abs().min(1).values)


NEAREST = MethodInfo(
    name="nearest",
    version="1",
    config=ToyConfig,
    build=Nearest,
    summary="",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {}},
)


class Fixed(Nearest):
    """The mean grey, whatever the supports."""

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        return lambda images: Scores(image=images.mean((1, 2, 3)))


FIXED = dataclasses.replace(NEAREST, name="fixed", build=Fixed)
EXTRA = {"organ": "o", "modality": "m", "held_out_with": "[]"}


def grey_set(path: Path, train: list[int], normal: list[int], anomalous: list[int], **columns: list[str]) -> Dataset:
    """A set of even grey images of these values, each a group of its own; one draw in the order of `train`."""
    values = [*train, *normal, *anomalous]
    table = toy_table(len(values)).assign(
        label=[0] * (len(train) + len(normal)) + [1] * len(anomalous),
        split=["train"] * len(train) + ["test"] * (len(normal) + len(anomalous)),
        **columns,
    )
    header = dataclasses.replace(HEADER, size_px=8, mask_kind="none", extra=EXTRA)
    episodes = [list(range(len(train))), list(range(len(train)))[::-1]]
    write_store(path, header, table, episodes, lambda index: (np.full((8, 8, 1), values[index], np.uint8), None))
    return Dataset(path)


def nearest_cell(target: Dataset, runs: Path, *, shots: int = 2, **options: object) -> Cell:
    values = {"draws": 2, "preset": "quick", **options}
    return Cell(NEAREST, ToyConfig(), "", target, (), shots, RunOptions(runs, **values))  # type: ignore[arg-type]


def width_of(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.size[0]


@pytest.fixture(scope="module")
def pair(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of a clean run and of one with a contaminated support, nothing else beside them."""
    runs = tmp_path_factory.mktemp("pair")
    cells = [cell_of(TOY, own_data, runs, contaminated=m) for m in (0, 1)]
    for cell in cells:
        Runner("cpu").run(cell)
    return [runs / cell.run_id for cell in cells]


@pytest.fixture
def grey(tmp_path: Path) -> Dataset:
    """Supports of grey 100, normals 1 to 8 away, anomalies in two kinds, 150 and 200, with four images each."""
    return grey_set(tmp_path / "grey.h5", [100] * 4, list(range(101, 109)), [150] * 4 + [200] * 4)


def test_a_copy_of_the_anomaly_among_the_supports_costs_a_nearest_neighbour_what_the_hand_works_out(
    grey: Dataset, tmp_path: Path
) -> None:
    """Two of eight groups are in reserve. Queries like the contaminant score 0, below all normals; the others stay."""
    pair = [nearest_cell(grey, tmp_path, contaminated=m) for m in (0, 1)]
    for cell in pair:
        Runner("cpu").run(cell)
    point = measure(*(tmp_path / cell.run_id for cell in pair))
    grey_of = {f"g{k}": 150 if k < 16 else 200 for k in range(12, 20)}
    left = [grey_of[group] for group in grey_of if group not in reserved_groups(grey)]
    assert len(left) == 6
    lost = []
    for draw in (0, 1):
        (contaminant,) = contaminants(grey, draw)[:1]
        lost.append(left.count(grey_of[f"g{contaminant}"]) / 6)
    assert min(lost) > 0
    assert (point.clean.value, point.queries) == (1.0, 14)
    assert point.difference.value == pytest.approx(-np.mean(lost), abs=1e-12)
    assert point.spoilt.value == pytest.approx(1 - np.mean(lost), abs=1e-12)
    low, high = point.difference.low, point.difference.high
    assert low is not None
    assert high is not None
    assert low <= point.difference.value <= high


def test_a_page_has_the_differences_of_accepted_rows_and_is_checked(pair: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    part = "<!-- generated: {} -->\n<!-- end -->\n"
    page.write_text(part.format("robustness method=toy") + part.format("rows method=toy"), "utf-8")
    for folder in pair:
        accept(folder, tmp_path / "results")
    write_pages(tmp_path / "results", [page])
    point = measure(*pair)
    figures = f"| 1 of 2 | {point.clean.value:.3f} | {point.spoilt.value:.3f} | {point.difference.text} |"
    lines = page.read_text("utf-8").splitlines()
    of_pair, of_clean = (line for line in lines if line.startswith("| toy | "))
    assert of_pair == f"| toy | ward_a {figures}"
    assert of_clean == f"| toy | {RunFolder(pair[0]).row().metrics['image_auroc'].text} |"
    assert board_faults(tmp_path / "results", [page]) == []
    page.write_text(page.read_text("utf-8").replace(point.difference.text, "+0.500"), "utf-8")
    assert len(board_faults(tmp_path / "results", [page])) == 1


def test_a_row_of_clean_supports_is_what_it_was(own_data: Path, pair: list[Path], tmp_path: Path) -> None:
    """Neither its run id nor its content knows of contamination."""
    cell = cell_of(TOY, own_data, tmp_path)
    assert pair[0].name == cell.run_id
    fields = {
        *("training", "config", "benchmark", "target", "membership_digest", "content_digest", "references"),
        *("hold_out", "protocol", "shots", "draws", "checkpoint", "scoring"),
    }
    assert set(cell.identity) == fields
    by_hand = hashlib.sha256(json.dumps(cell.identity, sort_keys=True, default=str).encode()).hexdigest()
    assert cell.run_id == f"toy-ward_a-2shot-{by_hand[:12]}"
    stored = json.loads((pair[0] / "row.json").read_text("utf-8"))
    assert "contaminated_supports" not in stored
    assert stored["n_unscored"] == 0
    assert stored == RunFolder(pair[0]).row().dump()


def test_both_figures_are_of_the_contaminated_runs_queries(pair: list[Path]) -> None:
    """The clean run's own scores of these queries, and none of the others."""
    tables = [RunFolder(folder).scores() for folder in pair]
    shared = tables[0][tables[0]["index"].isin(tables[1]["index"])]
    point = measure(*pair)
    for table, figure in ((shared, point.clean), (tables[1], point.spoilt)):
        draws = [auroc_score(d["score"].to_numpy(), d["anomalous"].to_numpy(bool)) for _, d in table.groupby("draw")]
        assert figure.value == pytest.approx(np.mean(draws), abs=1e-12)
    assert point.difference.value == pytest.approx(point.spoilt.value - point.clean.value, abs=1e-12)


def test_a_contaminated_run_is_marked_checked_and_rescored(own_data: Path, pair: list[Path]) -> None:
    cell = cell_of(TOY, own_data, pair[1].parent, contaminated=1)
    row, folder = RunFolder(pair[1]).row(), pair[1]
    assert "-2shot-1contaminated-" in folder.name
    assert (row.contaminated_supports, row.n_anomalous, row.n_unscored, row.n_reserved) == (1, 8, 0, 2)
    assert row.checks["supports"] == PASSED
    assert not row.failed_checks
    assert "pixel_auroc" in row.metrics, "the truth of the queries that are left"
    assert rescored(RunFolder(folder)) == row
    listed = RunFolder(folder).calibration().query("set == 'ward_a' and draw == 0")["id"].tolist()
    assert listed == cell.target.table["id"].iloc[cell.episodes.support(0)].tolist(), "who the supports were"


def test_clean_and_contaminated_rows_never_share_a_board(pair: list[Path]) -> None:
    boards = groups(rows_in_runs(pair[0].parent))
    assert [group.title for group in boards] == [
        "own: ward_a, 2 shots, 64 px",
        "own: ward_a, 2 shots, of them 1 contaminated, 64 px",
    ]
    assert [len(group.lines) for group in boards] == [1, 1]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=8, max_size=40), st.integers(1, 3))
def test_support_and_queries_are_disjoint_by_group_whatever_the_groups(
    tmp_path_factory: pytest.TempPathFactory, test: list[tuple[int, bool]], contaminated: int
) -> None:
    """Groups of any size, with images of one class or of both."""
    anomalous = [group for group, label in test if label]
    normal = [group for group, label in test if not label]
    names = [f"t{k}" for k in range(6)] + [f"g{group}" for group in (*normal, *anomalous)]
    path = tmp_path_factory.mktemp("groups") / "x.h5"
    dataset = grey_set(path, [100] * 6, [101] * len(normal), [150] * len(anomalous), group=names)
    episodes, with_one = (Episodes(dataset, 4, contaminated=m) for m in (contaminated, 1))
    if not anomalous or episodes.why_absent(2):
        return
    queries = dataset.table.iloc[episodes.queries]
    for draw in (0, 1):
        support = dataset.table.iloc[episodes.support(draw)]
        assert len(support) == 4
        assert support["label"].sum() == contaminated
        assert support["group"].is_unique
        assert not set(support["group"]) & set(queries["group"])
        clean = dataset.episodes[draw][: 4 - contaminated]
        assert list(support.index[: 4 - contaminated]) == list(clean), "the rest of the draw is as it was"
        assert with_one.support(draw)[-1] == support.index[4 - contaminated], "nested"
    assert list(episodes.queries) == list(with_one.queries), "whatever M"


def test_the_rule_is_pinned(grey: Dataset) -> None:
    """Ranks worked out here from the sentence in the module."""

    def rank(text: str) -> str:
        return hashlib.sha256(f"medfsad/contaminated/1:{text}".encode()).hexdigest()

    ids = [f"i{k}" for k in range(12, 20)]
    held = sorted(ids, key=lambda image_id: rank(f"toy:{image_id}"))[:2]
    assert reserved_groups(grey) == tuple(image_id.replace("i", "g") for image_id in held)
    for draw in (0, 1):
        expected = sorted(held, key=lambda image_id: rank(f"toy:{draw}:{image_id}"))
        assert grey.table["id"].iloc[contaminants(grey, draw)].tolist() == expected


def test_what_cannot_be_contaminated_says_why(grey: Dataset, tmp_path: Path) -> None:
    assert "leaves no normal one" in nearest_cell(grey, tmp_path, shots=2, contaminated=2).absent
    assert "lends 2 anomalous groups" in nearest_cell(grey, tmp_path, shots=4, contaminated=3).absent
    assert "strict protocol alone" in nearest_cell(grey, tmp_path, contaminated=1, protocol="published").absent
    few = grey_set(tmp_path / "few.h5", [100] * 4, [101] * 4, [150] * 2)
    assert "has 4 normal and 1 anomalous" in nearest_cell(few, tmp_path, contaminated=1).absent
    assert nearest_cell(few, tmp_path).absent == ""


def test_only_a_clean_and_a_contaminated_run_of_one_cell_make_a_point(grey: Dataset, tmp_path: Path) -> None:
    clean, spoilt, other = (nearest_cell(grey, tmp_path, contaminated=m, shots=k) for m, k in ((0, 2), (1, 2), (0, 3)))
    for cell in (clean, spoilt, other):
        Runner("cpu").run(cell)
    folders = [tmp_path / cell.run_id for cell in (clean, spoilt, other)]
    with pytest.raises(ResultsError, match="expected none in the first and some in the second"):
        measure(folders[1], folders[0])
    with pytest.raises(ResultsError, match="differ in shots"):
        measure(folders[2], folders[1])
    rows = [RunFolder(folder).row() for folder in folders[:2]]
    assert clean_and_contaminated(rows) == [tuple(rows)]
    trained_elsewhere = rows[1].model_copy(update={"pretrain_s": 12.5})
    assert clean_and_contaminated([rows[0], trained_elsewhere]) == []
    write_json(folders[1] / "row.json", trained_elsewhere.dump())
    with pytest.raises(ResultsError, match="differ in their training"):
        measure(folders[0], folders[1])
    write_json(folders[1] / "row.json", rows[1].dump())
    from medfsad_bench.board.comparison import compare

    with pytest.raises(ResultsError, match="differ in contaminated supports"):
        compare(folders[:1], folders[1:2])


def test_a_method_that_looks_at_no_support_is_not_moved(own_data: Path, tmp_path: Path) -> None:
    cells = [cell_of(FIXED, own_data, tmp_path, target="ward_b", draws=2, contaminated=m) for m in (0, 1)]
    for cell in cells:
        Runner("cpu").run(cell)
    point = measure(*(tmp_path / cell.run_id for cell in cells))
    assert point.difference.low == point.difference.value == point.difference.high == 0
    assert point.clean == point.spoilt


def test_the_mean_over_targets_counts_each_target_once(pair: list[Path], tmp_path: Path) -> None:
    point = measure(*pair)
    other = dataclasses.replace(point, target="elsewhere", difference=dataclasses.replace(point.difference, value=0.5))
    (mean,) = means([point, other])
    assert (mean.target, mean.queries) == ("", 2 * point.queries)
    assert mean.difference.value == pytest.approx((point.difference.value + 0.5) / 2, abs=1e-12)
    assert means([point]) == []
    elsewhere = dataclasses.replace(other, method="second")
    assert means([point, elsewhere]) == [], "no mean of different targets beside each other"
    write_picture([point, other, mean, elsewhere], tmp_path / "curves.png")
    assert width_of(tmp_path / "curves.png") > 600


def test_a_redundant_support_has_no_influence_on_a_nearest_neighbour(tmp_path: Path) -> None:
    """Either of the two at 100 may go. Without 110 three normals are 8 to 11 away and 7 of 16 pairs are right."""
    target = grey_set(tmp_path / "x.h5", [100, 100, 110], [101, 108, 109, 111], [95, 96, 105, 116])
    cell = nearest_cell(target, tmp_path, shots=3)
    influences = {
        influence.position: influence
        for influence in leave_one_out(cell, [0], CPU, FeatureCache(CPU), progress=lambda *_: None)
    }
    for position in (0, 1):
        difference = influences[position].difference
        assert difference.value == difference.low == difference.high == 0
    assert influences[2].auroc == 1
    assert influences[2].difference.value == pytest.approx(1 - 7 / 16, abs=1e-12)


def test_the_influence_interval_is_that_of_the_two_detectors_and_order_is_from_harm_to_help(
    own_data: Path, tmp_path: Path
) -> None:
    cell = cell_of(TOY, own_data, tmp_path, shots=3)
    influences = leave_one_out(cell, [1], CPU, FeatureCache(CPU), progress=lambda *_: None)
    values = [influence.difference.value for influence in influences]
    assert values == sorted(values)
    assert sorted(influence.position for influence in influences) == [0, 1, 2]
    tables = []
    for without in (None, influences[0].position):
        with opened(cell, CPU, FeatureCache(CPU), lambda *_: None) as run:
            draw = score_draw(run, 1, without=without)
        table = scores_table(cell.target, cell.episodes.queries, [draw])
        row = table["score"].to_numpy(float)[None]
        tables.append(replicate(row, table["anomalous"].to_numpy(bool), group_keys(table["group"])))
    assert influences[0].difference == paired_difference(*tables)


def test_a_contaminated_support_is_named_as_an_anomaly_and_hurts(grey: Dataset, tmp_path: Path) -> None:
    cell = nearest_cell(grey, tmp_path, shots=4, contaminated=1)
    influences = leave_one_out(cell, [0, 1], CPU, FeatureCache(CPU), progress=lambda *_: None)
    for draw in (0, 1):
        mine = [influence for influence in influences if influence.draw == draw]
        assert [influence.anomalous for influence in mine] == [True, False, False, False]
        assert mine[0].difference.value < 0 == mine[1].difference.value
    write_influences(cell, influences, tmp_path / "influence.png")
    assert width_of(tmp_path / "influence.png") > 500


def test_leaving_out_the_last_support_is_the_draw_of_one_less(own_data: Path, tmp_path: Path) -> None:
    scores = []
    for shots, without in ((3, 2), (2, None)):
        cell = cell_of(TOY, own_data, tmp_path, shots=shots)
        with opened(cell, CPU, FeatureCache(CPU), lambda *_: None) as run:
            scores.append(score_draw(run, 0, without=without).columns["score"])
    assert np.array_equal(scores[0], scores[1])
