"""What the site shows beside the board: downloads, versions, curves, costs, pictures, habits, what papers say."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bench.bench_site import GOAL_MB, rows_of
from board_rows import row_of
from test_runner import TOY, cell_of
from test_site import EVIL, benchmark_rows, text_of

from medfsad_bench.board.accepted import rows_in_runs
from medfsad_bench.board.groups import groups
from medfsad_bench.board.reported import WARNING, Figure, Source
from medfsad_bench.board.robustness import measure
from medfsad_bench.board.site import pictures
from medfsad_bench.board.site.build import write_site
from medfsad_bench.board.site.curves import contamination_of, overlays
from medfsad_bench.board.site.entries import costs_of, reached
from medfsad_bench.board.site.history import benchmark_versions, changes, superseded
from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.results.habits import HabitStudy, studies_in, write_study
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder, scores_by_run
from medfsad_bench.runner.runner import Runner

OLD = {"target_version": "1.0.0", "membership_digest": "9" * 64}


@pytest.fixture(scope="module")
def runs(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean run that kept its maps, and the same with one of its two supports contaminated."""
    folder = tmp_path_factory.mktemp("runs")
    cell = cell_of(TOY, own_data, folder, target="ward_b", shots=2, draws=2)
    clean = replace(cell, options=replace(cell.options, save_maps=True))
    Runner("cpu").run(clean)
    Runner("cpu").run(replace(cell, options=replace(cell.options, contaminated=1)))
    return folder


def shown(page: Path) -> str:
    """A page's text as a reader sees it: no tags, one space between words."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text_of(page))).split())


def test_downloads_are_the_rows_and_scores_in_every_form(runs: Path, tmp_path: Path) -> None:
    rows = [*rows_in_runs(runs), *benchmark_rows()]
    write_site(rows, scores_by_run(runs), tmp_path / "site")
    whole = json.loads(text_of(tmp_path / "site" / "rows.json"))
    assert sorted(whole, key=lambda row: row["run_id"]) == sorted(
        (row.dump() for row in rows), key=lambda row: row["run_id"]
    )
    expected = {(row.run_id, name): e.value for row in rows for name, e in row.metrics.items()}
    for table in (pd.read_parquet(tmp_path / "site" / "rows.parquet"), pd.read_csv(tmp_path / "site" / "rows.csv")):
        assert dict(zip(zip(table["run_id"], table["metric"], strict=True), table["value"], strict=True)) == expected
    for row in rows_in_runs(runs):
        path = tmp_path / "site" / "cells" / row.run_id
        as_csv = pd.read_csv(path.with_suffix(".csv"), dtype={"id": str, "group": str})
        as_parquet = pd.read_parquet(path.with_suffix(".parquet"))
        pd.testing.assert_frame_equal(as_csv, as_parquet, check_dtype=False, check_exact=True)
        assert f'href="{row.run_id}.parquet"' in text_of(path.with_suffix(".html"))


def test_a_cell_that_a_spreadsheet_would_run_is_a_text_in_csv_alone(tmp_path: Path) -> None:
    write_site([row_of("a", "lgg", 0.6, preset="=1+1")], {}, tmp_path / "site")
    assert pd.read_csv(tmp_path / "site" / "rows.csv")["preset"][0] == "'=1+1"
    assert pd.read_parquet(tmp_path / "site" / "rows.parquet")["preset"][0] == "=1+1"


def test_every_version_of_a_benchmark_has_a_page_and_superseded_rows_rank_there_among_themselves(
    tmp_path: Path,
) -> None:
    old = [row_of(name, "lgg", auroc, run_id=f"{name}-old", **OLD) for name, auroc in (("a", 0.9), ("b", 0.7))]
    rows = [*old, row_of("a", "lgg", 0.6), row_of("b", "lgg", 0.8), row_of("a", "histology_lung", 0.5)]
    newest, oldest = benchmark_versions(rows, {}, ())
    assert (newest.sets, newest.current) == ({"histology_lung": "1.0.0", "lgg": "2.0.0"}, True)
    assert (oldest.sets, oldest.current) == ({"histology_lung": "1.0.0", "lgg": "1.0.0"}, False)
    assert {row.run_id for row in oldest.rows} == {"a-old", "b-old", "a-histology_lung-4shot"}
    assert groups(old)[0].lines[0].rank is None, "not on the board of today"
    (then,) = groups(old, versions={"lgg": "1.0.0"})
    assert [(line.method, line.rank) for line in then.lines] == [("a", 1), ("b", 2)]
    write_site(rows, {}, tmp_path / "site")
    assert newest.name == "medfsad-open, sets at 2.0.0 except histology_lung at 1.0.0"
    page = tmp_path / "site" / oldest.page
    assert "Superseded." in shown(page)
    assert f'href="../{newest.page}"' in text_of(page)
    cell = tmp_path / "site" / "cells" / "a-old.html"
    assert "Superseded: lgg has version 2.0.0 now." in shown(cell).replace(" :", ":")
    assert f'href="../{oldest.page}"' in text_of(cell)
    assert shown(tmp_path / "site" / "datasets" / "lgg.html").count("superseded") == 2


def test_rows_that_come_later_leave_a_versions_address() -> None:
    rows = [row_of("a", "lgg", 0.6, date="2026-01-02", **OLD), row_of("a", "lgg", 0.6)]
    older = row_of("b", "lgg", 0.7, date="2025-01-02", **OLD | {"target_version": "0.9.0"})
    before, after = benchmark_versions(rows, {}, ()), benchmark_versions([*rows, older], {}, ())
    assert (len(before), len(after)) == (2, 3)
    assert [version.page for version in after[:2]] == [version.page for version in before]


def test_a_row_is_superseded_by_its_cells_row_of_a_newer_version_of_the_method() -> None:
    rows = [row_of("a", "lgg", 0.6, method_version=f"1.{n}.0", run_id=f"v{n}") for n in (9, 10)]
    assert superseded(rows) == {"v9": "version 1.10.0 of the method has a row of this cell"}
    assert superseded([rows[0], rows[1].model_copy(update={"shots": 8})]) == {}


def test_changes_name_new_rows_methods_and_versions_newest_first() -> None:
    rows = [row_of("a", "lgg", 0.6, date="2026-01-02", **OLD, run_id="old"), row_of("a", "lgg", 0.6)]
    versions = benchmark_versions(rows, {}, ())
    told = changes(rows, versions)
    assert [change.date for change in told] == sorted((change.date for change in told), reverse=True)
    assert {change.key for change in told} == {
        *("run:old", "run:a-lgg-4shot", "method:a:1.0.0"),
        *(f"benchmark:{version.key}" for version in versions),
    }
    assert next(change.date for change in told if change.key == "method:a:1.0.0") == "2026-01-02"


def test_two_settings_of_a_method_have_curves_and_rows_of_their_own(tmp_path: Path) -> None:
    rows = [row_of("a", "lgg", 0.6 + k / 10, run_id=f"k{k}", config={"k": k}) for k in (1, 2)]
    write_site(rows, {}, tmp_path / "site")
    page = shown(tmp_path / "site" / "methods" / "a.html")
    assert "a, k 2 lgg: 0.800 at K = 4" in page
    assert "a, k 1 lgg: 0.700 at K = 4" in page
    assert "lgg a, k 1 medfsad-open" in page
    assert "a, k 2 leads with a mean of 0.800, " in shown(tmp_path / "site" / "index.html")


def test_curves_over_shots_are_means_over_the_targets_of_every_shot() -> None:
    """By hand: histology_lung is missing at 8 shots, so that lgg and chest_nih are averaged at both."""
    values = {4: {"lgg": 0.6, "chest_nih": 0.8, "histology_lung": 0.1}, 8: {"lgg": 0.7, "chest_nih": 0.9}}
    rows = [
        row_of(method, target, value - gap, shots=shots, run_id=f"{method}-{target}-{shots}")
        for method, gap in (("a", 0.0), ("b", 0.1))
        for shots, by_target in values.items()
        for target, value in by_target.items()
    ]
    (overlay,) = overlays(groups(rows))
    assert (overlay.shots, overlay.targets) == ((4, 8), ("chest_nih", "lgg"))
    assert [curve.label for curve in overlay.curves] == ["a", "b"]
    assert {k: point[0] for k, point in overlay.curves[0].points.items()} == pytest.approx({4: 0.7, 8: 0.8})
    assert overlays(groups([row for row in rows if row.shots == 4])) == []


def test_nine_curves_have_names_apart_from_each_other_and_the_rest_is_grey() -> None:
    rows = [
        row_of(f"m{number:02d}", "lgg", 0.6, shots=shots, run_id=f"{number}-{shots}")
        for number in range(12)
        for shots in (2, 4)
    ]
    (overlay,) = overlays(groups(rows))
    heights = sorted(curve.label_y for curve in overlay.curves if curve.named)
    assert len(heights) == 9
    assert min(np.diff(heights)) > 0.05
    assert 0 <= heights[0] <= heights[-1] <= 1


def test_who_is_beaten_on_both_axes_bears_no_mark() -> None:
    facts: dict[str, tuple[float, float, float]] = {"good": (0.9, 50, 900), "fast": (0.7, 5, 900), "bad": (0.6, 60, 80)}
    rows = [row_of(n, "lgg", auroc, score_ms_per_image=ms, peak_memory_mb=mb) for n, (auroc, ms, mb) in facts.items()]
    costs = {cost.label: (cost.fastest, cost.smallest) for cost in costs_of(groups(rows)[0])}
    assert costs == {"good": (True, True), "fast": (True, False), "bad": (False, True)}


def test_a_data_set_says_what_the_controls_and_the_leader_reach() -> None:
    rows = [row_of(name, "lgg", auroc) for name, auroc in (("shortcut", 0.7), ("chance", 0.5), ("a", 0.6), ("b", 0.65))]
    assert [(k, [who for who, _ in told]) for k, told in reached(rows)] == [(4, ["chance", "shortcut", "b leads"])]


def test_contaminated_supports_are_compared_as_the_command_compares_them(runs: Path, tmp_path: Path) -> None:
    rows, evidence = rows_in_runs(runs), scores_by_run(runs)
    (point,) = contamination_of(rows, evidence)["toy"]
    clean, contaminated = sorted(rows, key=lambda row: row.contaminated_supports)
    assert point == measure(runs / clean.run_id, runs / contaminated.run_id)
    assert contamination_of(rows, {clean.run_id: evidence[clean.run_id]}) == {}
    write_site(rows, evidence, tmp_path / "site", runs=runs)
    page = shown(tmp_path / "site" / "methods" / "toy.html")
    assert f"ward_b, 1 of 2: {point.clean.value:.3f} clean, {point.spoilt.value:.3f}" in page


def test_examples_are_the_best_median_and_worst_anomaly_of_a_run_with_maps(
    runs: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evidence = scores_by_run(runs)
    (row,) = (row for row in rows_in_runs(runs) if not row.contaminated_supports)
    assert pictures.Pictures(own_data).examples(row, evidence[row.run_id]) == (), "nobody's own images"
    monkeypatch.setattr(pictures, "may_be_shown", lambda _: True)
    examples = pictures.Pictures(own_data).examples(row, evidence[row.run_id])
    scores = RunFolder(runs / row.run_id).scores().query("draw == 0")
    normal = scores.loc[~scores["anomalous"], "score"]
    anomalies = scores.loc[scores["anomalous"], "score"].sort_values(ascending=False).to_list()
    expected = [
        float((normal < score).mean()) for score in (anomalies[0], anomalies[len(anomalies) // 2], anomalies[-1])
    ]
    assert [example.kind for example in examples] == ["best", "median", "worst"]
    assert [example.above for example in examples] == pytest.approx(expected)
    assert all(example.picture.startswith("data:image/jpeg;base64,") for example in examples)
    assert len(pictures.Pictures(own_data).sheet(row)) < 300_000
    write_site([row], evidence, tmp_path / "site", data=own_data)
    assert "best: scored above" in shown(tmp_path / "site" / "methods" / "toy.html")


def test_images_that_may_not_be_passed_on_are_named_and_not_shown(own_data: Path, tmp_path: Path) -> None:
    rows = [row_of("a", "rsna", 0.6), row_of("a", "ward_b", 0.6, benchmark="own")]
    write_site(rows, {}, tmp_path / "site", data=own_data)
    for name in ("rsna", "own-ward_b"):
        assert "may not be passed on" in shown(tmp_path / "site" / "datasets" / f"{name}.html")
        assert "<img" not in text_of(tmp_path / "site" / "datasets" / f"{name}.html")


def test_the_protocols_page_has_the_habits_with_their_command_and_the_papers_figures_apart(tmp_path: Path) -> None:
    figures = {"published": Estimate(value=0.91), "strict": Estimate(value=0.62, low=0.5, high=0.7)}
    study = HabitStudy(
        method="patchcore",
        method_version="1.0.0",
        preset="quick",
        config={"neighbours": 3},
        target="lgg",
        target_version="2.0.0",
        benchmark="medfsad-open",
        shots=4,
        draws=5,
        seed=0,
        figures=figures,
    )
    write_study(tmp_path / "runs" / "protocols" / "cell", study)
    assert studies_in(tmp_path / "runs") == [study]
    source = Source(
        title=f"A paper {EVIL}",
        url="https://example.org",
        read="the paper",
        protocol="not known",
        knowledge="K normals",
        figures=(Figure(method="best", images="his", shots=2, auroc=99.9),),
    )
    write_site([row_of("a", "lgg", 0.6)], {}, tmp_path / "site", studies=[study], reported=[source])
    page = shown(tmp_path / "site" / "protocol.html")
    assert "strict 0.620 [0.500, 0.700]" in page
    assert "medfsad protocols patchcore --target lgg --shots 4 --preset quick --draws 5" in page
    assert "--set neighbours=3" in page
    assert WARNING in page
    assert "best his 99.9" in page
    assert "99.9" not in shown(tmp_path / "site" / "index.html")
    (tmp_path / "runs" / "protocols" / "cell" / "habits.json").write_text("{}", "utf-8")
    with pytest.raises(ResultsError, match="no study of protocols"):
        studies_in(tmp_path / "runs")


@pytest.mark.slow
def test_the_board_of_25_methods_12_targets_and_3_shots_is_light(tmp_path: Path) -> None:
    rows: list[Row] = rows_of(25)
    assert len(rows) == 25 * 12 * 3
    write_site(rows, {}, tmp_path / "site")
    sizes: dict[str, Any] = {path.name: path.stat().st_size / 1e6 for path in (tmp_path / "site").glob("*.html")}
    assert max(sizes.values()) <= GOAL_MB, sizes
