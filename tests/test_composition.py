"""What sides are made up of, which sets are small, and what is said and done about either."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Silent
from hypothesis import given
from hypothesis import strategies as st
from test_runner import TOY, cell_of

from medfsad_bench.board.groups import Group, groups
from medfsad_bench.board.pages import SMALL_SETS, as_json, as_markdown
from medfsad_bench.board.terminal import as_tables
from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.demo.downloads import write_demo_downloads
from medfsad_bench.manifest import all_manifests, listed_ids, version_note
from medfsad_bench.resources import resource_dir
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.row import Row, parse_row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset
from medfsad_bench.store.composition import (
    Composition,
    compositions,
    effective_number,
    is_small,
    listed_compositions,
    table_compositions,
)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_the_effective_number_lies_between_one_and_the_count(sizes: list[int]) -> None:
    assert 1 <= effective_number(sizes) <= len(sizes) + 1e-9
    assert effective_number([7] * len(sizes)) == pytest.approx(len(sizes))
    assert effective_number([*sizes, 0]) == effective_number(sizes)


def sides(test_normal: int, test_anomalous: int, *, train: int = 1) -> dict[str, Composition]:
    """One image per group."""
    counts = {("train", False): train, ("test", False): test_normal, ("test", True): test_anomalous}
    return compositions((side, label, f"{side}{label}{k}") for (side, label), n in counts.items() for k in range(n))


def test_a_set_is_small_below_15_effective_groups_of_a_class_in_the_test() -> None:
    assert not is_small(sides(15, 15))
    assert is_small(sides(14, 40))
    assert is_small(sides(40, 14))
    sixteen_and_a_large_one = [("test", False, str(max(k - 4, 0))) for k in range(20)]
    assert compositions(sixteen_and_a_large_one)["test normal"] == Composition(20, 16, 5, 10.0)
    assert is_small(compositions(sixteen_and_a_large_one))


LISTED = [(m, b) for m in all_manifests().values() for b, split in m.benchmarks.items() if split.ids]


@pytest.mark.parametrize(("manifest", "benchmark"), LISTED, ids=lambda value: getattr(value, "name", value))
def test_every_committed_list_states_its_composition_and_none_is_small(manifest: Any, benchmark: str) -> None:
    split = manifest.benchmarks[benchmark]
    made_of = listed_compositions(manifest, split)
    assert [of_class.images for of_class in made_of.values()] == [split.train, split.test_normal, split.test_anomalous]
    assert list(made_of) == ["train normal", "test normal", "test anomalous"]
    assert not is_small(made_of)
    listed = listed_ids(manifest, split) or []
    assert made_of["train normal"].groups == len({row.group for row in listed if row.split == "train"})


def test_the_table_of_the_readme_is_that_of_the_lists() -> None:
    text = (resource_dir("data_manifests") / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\|" + r" ([\d,]+), ([\d.,]+) \|" * 3 + "$", text, re.MULTILINE)
    assert len(rows) == 8
    for name, *figures in rows:
        manifest = all_manifests()[name]
        made_of = listed_compositions(manifest, next(s for s in manifest.benchmarks.values() if s.ids)).values()
        stated = [float(figure.replace(",", "")) for figure in figures]
        assert stated[::2] == [of_class.images for of_class in made_of]
        assert stated[1::2] == [round(of_class.effective_groups, 1) for of_class in made_of]


def test_a_list_that_does_not_tell_the_classes_apart_has_no_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = all_manifests()["lgg"]
    split = manifest.benchmarks["medfsad-open"]
    unlabelled = [row.model_copy(update={"label": ""}) for row in listed_ids(manifest, split) or []]
    monkeypatch.setattr("medfsad_bench.store.composition.listed_ids", lambda *_: unlabelled)
    assert listed_compositions(manifest, split) == {}


def test_preparing_phantoms_states_what_each_set_is_made_up_of(tmp_path: Path) -> None:
    """In the report, and from the file's own table alike."""
    write_demo_downloads(tmp_path / "raw", scale=0.2)
    reports, _ = prepare(tmp_path / "raw", PrepareOptions(tmp_path, "demo", 32), watcher=Silent())
    assert len(reports) == 6
    for report in reports:
        table = Dataset(Path(report.path)).table
        assert report.composition == table_compositions(table)
        written = json.loads(Path(report.path).with_suffix(".report.json").read_text("utf-8"))["composition"]
        for (split, label), rows in table.groupby(["split", "label"]):
            sizes = rows["group"].value_counts()
            assert written.pop(f"{split} {'anomalous' if label else 'normal'}") == {
                "images": sizes.sum(),
                "groups": len(sizes),
                "largest_group": sizes.max(),
                "effective_groups": pytest.approx(sizes.sum() ** 2 / (sizes**2).sum()),
            }
        assert written == {}


@pytest.fixture(scope="module")
def run(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, RunFolder]:
    runs = tmp_path_factory.mktemp("runs")
    row, _ = Runner("cpu").run(cell_of(TOY, own_data, runs))
    return row, RunFolder(runs / row.run_id)


def test_a_row_states_the_effective_groups_of_the_test_and_an_older_one_is_read_without(
    run: tuple[Row, RunFolder],
) -> None:
    row, folder = run
    assert row.effective_groups == {"normal": 12, "anomalous": 10}
    assert row.is_small
    assert rescored(folder) == row
    content = row.dump()
    del content["effective_groups"]
    older = parse_row(json.dumps(content), where="here")
    assert not older.is_small
    assert older.dump() == content


def rows_of(row: Row, method: str, figures: dict[str, tuple[float, float]], **changed: Any) -> list[Row]:
    """A method's rows on sets of the open benchmark: AUROC and effective groups of each class, by target."""
    estimate = row.metrics["image_auroc"]
    return [
        row.model_copy(
            update={
                "benchmark": "medfsad-open",
                "run_id": f"{method}-{target}",
                "method": method,
                "target": target,
                "target_version": all_manifests()[target].version,
                "effective_groups": {"normal": number, "anomalous": 20.0} if number else {},
                "metrics": {"image_auroc": estimate.model_copy(update={"value": auroc})},
                **changed,
            }
        )
        for target, (auroc, number) in figures.items()
    ]


def board_of(*rows: Row) -> Group:
    (group,) = groups(rows)
    return group


def test_a_small_set_is_shown_and_takes_no_part_in_the_mean(run: tuple[Row, RunFolder]) -> None:
    row = run[0]
    first = rows_of(row, "first", {"lgg": (0.5, 14.9), "chest_nih": (0.7, 15.0), "odir_dr": (0.9, 40)})
    other = rows_of(row, "other", {"lgg": (1.0, 14.9), "chest_nih": (0.6, 15.0), "odir_dr": (0.8, 40)})
    lacks = rows_of(row, "lacks", {"chest_nih": (0.5, 15.0), "odir_dr": (0.5, 40)})
    group = board_of(*first, *other, *lacks)
    assert group.small == ("lgg",)
    assert group.targets == ("chest_nih", "lgg", "odir_dr")
    assert [(line.method, line.rank) for line in group.lines] == [("first", 1), ("other", 2), ("lacks", 3)]
    assert [line.mean for line in group.lines] == pytest.approx([0.8, 0.7, 0.5])
    assert group.lines[0].letters
    page = as_markdown([group])
    assert "| lgg ‡ |" in page
    assert "1.000" in page
    assert SMALL_SETS in page
    assert SMALL_SETS.split(".")[0] in str(as_tables([group])[0].caption)
    assert json.loads(as_json([], [group]))["groups"][0]["small"] == ["lgg"]


def test_where_all_sets_are_small_the_mean_takes_all_of_them(run: tuple[Row, RunFolder]) -> None:
    group = board_of(*rows_of(run[0], "toy", {"lgg": (0.5, 10), "chest_nih": (0.7, 6)}))
    assert group.small == ("chest_nih", "lgg")
    assert group.lines[0].mean == pytest.approx(0.6)


def test_rows_without_the_field_count_as_before(run: tuple[Row, RunFolder]) -> None:
    group = board_of(*rows_of(run[0], "toy", {"lgg": (0.5, 0), "chest_nih": (0.7, 0)}))
    assert group.small == ()
    assert group.lines[0].mean == pytest.approx(0.6)
    assert SMALL_SETS not in as_markdown([group])


def test_versions_of_a_set_never_share_a_rank(run: tuple[Row, RunFolder]) -> None:
    older = rows_of(run[0], "toy", {"lgg": (0.9, 0)}, target_version="1.0.0", run_id="older")
    group = board_of(*older, *rows_of(run[0], "toy", {"lgg": (0.5, 16)}))
    assert {line.rows["lgg"].run_id: (line.rank, line.note) for line in group.lines} == {
        "older": (None, "lgg 1.0.0 is an older version"),
        "toy-lgg": (1, ""),
    }


def test_a_file_of_an_older_version_names_both_versions_and_their_rules() -> None:
    note = version_note({"name": "brain_tumor", "version": "1.1.0", "benchmark": "medfsad-open"})
    assert note.startswith(
        "made from version 1.1.0 of brain_tumor (membership rule 1), this release has 2.0.0 (rule 2)"
    )
    assert "don't rank" in note
    assert version_note({"name": "brain_tumor", "version": "0.0.0", "benchmark": "own"}) == "", "a folder of that name"
