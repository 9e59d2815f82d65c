"""Pages that commands write: parts made of accepted rows, LEADERBOARD.md, and figures from papers that never rank."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from board_rows import row_of
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of

from medfsad_bench.board import accepted, pages
from medfsad_bench.board.groups import Line, groups
from medfsad_bench.board.labels import labels_of, verdict
from medfsad_bench.board.reported import Figure, as_json, as_markdown, as_tables, grid_of, reported_sources
from medfsad_bench.board.sections import Material, made_anew, writer
from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.registry import preset_settings
from medfsad_bench.resources import resource_dir
from medfsad_bench.results.habits import HabitStudy, write_study
from medfsad_bench.results.rescore import differences
from medfsad_bench.results.row import Row
from medfsad_bench.runner.runner import Runner

REPORTED = resource_dir("leaderboard") / "reported.toml"
ONE_SOURCE = """
[[source]]
title = "A paper"
url = "https://example.org"
read = "the paper"
protocol = "its own"
knowledge = "K normal images"
figures = [
  { method = "theirs", images = "ward_b", shots = 2, auroc = 99.9 },
  { method = "other", images = "others", auroc = 50 },
]
"""


@pytest.fixture(scope="module")
def results(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One accepted row of the toy on ward_b, and a reported figure beside it."""
    root = tmp_path_factory.mktemp("board")
    cell = cell_of(TOY, own_data, root / "runs", target="ward_b")
    Runner("cpu").run(cell)
    accepted.accept(root / "runs" / cell.run_id, root / "results")
    (root / "reported.toml").write_text(ONE_SOURCE, "utf-8")
    return root / "results"


@pytest.fixture(scope="module")
def row(results: Path) -> Row:
    return accepted.rows_in_results(results)[0]


def test_all_pages_are_written_from_rows_and_checked(results: Path, row: Row, tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text("By hand.\n\n<!-- generated: rows method=toy shots=2 -->\n<!-- end -->\n", "utf-8")
    (stale,) = [fault for fault in accepted.check(results, [page]) if "RESULTS.md" in fault]
    assert "--write --page" in stale
    accepted.write_pages(results, [page])
    assert accepted.check(results, [page]) == []
    auroc = row.metrics["image_auroc"]
    cell = f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]"
    heading = "own: ward_b, 2 shots, 64 px, preset quick"
    assert f"{heading}\n\n| method | ward_b |\n|---|---|\n| toy | {cell} |" in page.read_text("utf-8")
    page.write_text(page.read_text("utf-8").replace(cell, "1.000"), "utf-8")
    assert len(accepted.check(results, [page])) == 1


def test_parts_choose_their_rows(results: Path, row: Row, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for conditions, there in (("", True), (" preset=paper,quick", True), (" preset=paper", False), (" shots=4", False)):
        page.write_text(f"<!-- generated: rows{conditions} -->\n<!-- end -->\n", "utf-8")
        assert ("| toy |" in made_anew(page, Material([row]))) == there
    page.write_text("<!-- generated: curve x -->\n\nkept\n\n<!-- end -->\n", "utf-8")
    assert made_anew(page, Material([row])) == page.read_text("utf-8"), "another command's part"
    page.write_text("<!-- generated: rows colour=red -->\n<!-- end -->\n", "utf-8")
    with pytest.raises(ResultsError, match="by 'colour'"):
        made_anew(page, Material([row]))


def test_a_script_writes_its_part_or_prints_and_is_told_before_that_it_cant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: costs -->\n<!-- end -->\n", "utf-8")
    writer(page, "costs")("| a |\n")
    written = page.read_text("utf-8")
    digest = hashlib.sha256(b"| a |").hexdigest()[:16]
    assert written == f"<!-- generated: costs -->\n\n| a |\n\n<!-- end {digest} -->\n"
    writer(None, "costs")("| b |\n")
    assert capsys.readouterr().out == "| b |\n"
    with pytest.raises(ResultsError, match="no part 'other'"):
        writer(page, "other")
    assert accepted.board_faults(tmp_path / "results", [page]) == []
    for typed in (written.replace("| a |", "| 0.9 |"), written.replace(f" {digest}", "")):
        page.write_text(typed, "utf-8")
        (fault,) = accepted.board_faults(tmp_path / "results", [page])
        assert "its part 'costs' isn't as a command wrote it" in fault
    writer(page, "costs")("| a |\n")
    assert page.read_text("utf-8") == written


def test_a_part_of_protocols_has_the_kept_studies_lines(tmp_path: Path) -> None:
    lines = ("published", "published, but each map smoothed by itself", "strict, but one draw", "strict")
    figures = {line: Estimate(value=0.9 - number / 10, low=0.1, high=0.95) for number, line in enumerate(lines)}
    facts: dict[str, Any] = {
        "method_version": "1",
        "preset": "quick",
        "config": {},
        "target_version": "1",
        "benchmark": "own",
    }
    facts |= {"target": "lgg", "shots": 4, "draws": 5, "seed": 0, "figures": figures}
    for folder, method in (("a", "toy"), ("b", "other"), ("c", "other")):
        study = HabitStudy.model_validate({"method": method, **facts})
        write_study(tmp_path / "results" / "protocols" / folder, study)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- generated: protocols method=toy -->\n<!-- end -->\n<!-- generated: protocols short -->\n<!-- end -->\n"
    )
    accepted.write_pages(tmp_path / "results", [page])
    of_toy, short = (part.split("<!-- end")[0].strip() for part in page.read_text("utf-8").split("-->\n")[1::2])
    cells = [f"| {line} | {estimate.text} |" for line, estimate in figures.items()]
    assert of_toy.splitlines() == ["| protocol | lgg |", "|---|---|", *cells]
    assert [line.count("|") for line in short.splitlines()] == [5] * 5, "three lines of three studies"
    assert "one draw" not in short
    assert short.startswith("| protocol | toy on lgg | other on lgg | other on lgg |")
    page.write_text(page.read_text("utf-8").replace("0.600", "0.700"), "utf-8")
    assert len(accepted.board_faults(tmp_path / "results", [page])) == 1


def test_reported_figures_stand_apart_and_have_no_rank(
    medfsad: Medfsad,  # noqa: F811 - the fixture
    results: Path,
    tmp_path: Path,
) -> None:
    results = shutil.copytree(results.parent, tmp_path / "board") / "results"  # of its own, to take scores away
    (path, *_) = accepted.write_pages(results)
    board, chapter = path.read_text("utf-8").split("## Reported elsewhere")
    assert "theirs" not in board
    assert "rank" not in "".join(line for line in chapter.splitlines() if line.startswith("|"))
    assert "| theirs | ward_b | – | 99.9 |" in chapter
    code, printed, _ = medfsad("leaderboard", "--results", results)
    assert code == 0
    assert "never ranked" in " ".join(printed.split())
    shutil.rmtree(results / "runs")  # as in a wheel
    code, _, complaint = medfsad("leaderboard", "--results", results)
    assert (code, "The scores of 1 row(s) aren't here" in " ".join(complaint.split())) == (0, True)
    code, printed, _ = medfsad("leaderboard", "--results", results, "--format", "json")
    assert '"reported"' in printed


def test_a_page_needs_a_purpose(medfsad: Medfsad, results: Path) -> None:  # noqa: F811 - the fixture
    code, _, complaint = medfsad("leaderboard", "--results", results, "--page", "x.md")
    assert code == 2
    assert "--write or --check" in " ".join(complaint.split())


def test_the_papers_table_is_whole() -> None:
    """Means over the five sets: 94.7, 96.7 and 97.3 at 2, 4 and 8 shots."""
    table = reported_sources(REPORTED)[0]
    assert {(figure.images, figure.shots) for figure in table.figures} == {
        (name, k) for name in ("his", "lag", "aptos", "rsna", "brain_tumor") for k in (2, 4, 8)
    }
    for k, mean in ((2, 94.7), (4, 96.7), (8, 97.3)):
        figures = [float(figure.auroc) for figure in table.figures if figure.shots == k]
        assert sum(figures) / 5 == pytest.approx(mean, abs=0.051)


def test_every_source_says_where_it_is_from_and_how_it_was_tested() -> None:
    sources = reported_sources(REPORTED)
    assert all(source.url.startswith("https://") and source.protocol and source.figures for source in sources)
    assert len(as_tables(sources)) == len(sources)
    assert as_markdown([]) == ""


def test_reported_figures_keep_the_digits_of_their_source(tmp_path: Path) -> None:
    path = tmp_path / "reported.toml"
    path.write_text(ONE_SOURCE.replace("99.9", "82.70"), "utf-8")
    (source,) = reported_sources(path)
    assert grid_of(source)[1] == [["theirs", "ward_b", "–", "82.70"], ["other", "others", "50", "–"]]
    (as_kept,) = as_json([source])
    assert [figure["auroc"] for figure in as_kept["figures"]] == [82.7, 50.0]


def test_the_papers_teachers_and_univad_on_liver_ct_are_reported() -> None:
    figures: list[Figure] = [figure for source in reported_sources(REPORTED) for figure in source.figures]
    by_name = {(figure.method, figure.images, figure.shots): str(figure.auroc) for figure in figures}
    assert by_name["D²4FAD, teacher WRN-50", "his", 2] == "96.7"
    assert by_name["D²4FAD, teacher Swin-B", "his", 2] == "64.7"
    assert by_name["UniVAD", "LiverCT of BMAD", 1] == "70.0"
    assert by_name["MadCLIP", "Chest of BMAD", 4] == "82.70"


@pytest.mark.parametrize(
    "text", ["[[sauce]]", ONE_SOURCE.replace("99.9", "999"), ONE_SOURCE.replace("url", "link"), "["]
)
def test_a_damaged_file_of_reported_figures_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reported.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ResultsError, match=r"reported\.toml: .*Expected tables \[\[source\]\]"):
        reported_sources(path)


def test_a_label_names_the_settings_in_which_a_line_leaves_its_preset() -> None:
    def lines(*configs: dict[str, object], **facts: object) -> list[str]:
        rows = [
            row_of("d24fad", "lgg", 0.9 - number / 10, preset="quick", run_id=str(number), config=config, **facts)
            for number, config in enumerate(configs)
        ]
        return labels_of(groups(rows)[0])

    quick = dict(preset_settings("d24fad", "quick"))
    assert (quick["epochs"], quick["steps"]) == (70, 600)  # the steps end it, so that the epochs say nothing
    assert lines(quick, {**quick, "epochs": 0}) == ["d24fad", "d24fad, epochs 0"]
    assert lines(quick, {**quick, "steps": None, "shots": 8}) == ["d24fad", "d24fad, steps none"]
    assert lines({**quick, "steps": 60}, {**quick, "steps": 6}) == ["d24fad, steps 60", "d24fad, steps 6"]
    assert lines({**quick, "depths": [1, 1, 1]}) == ["d24fad"]


def test_the_settings_of_a_method_that_is_not_installed_are_all_named() -> None:
    rows = [row_of("theirs", "lgg", 0.5 + k / 10, run_id=str(k), config={"k": k, "same": 1}) for k in (2, 1)]
    assert labels_of(groups(rows)[0]) == ["theirs, k 2", "theirs, k 1"]


def test_the_page_says_who_leads_and_from_whom_that_can_be_told() -> None:
    means = {"first": (0.9, "a"), "second": (0.85, "ab"), "third": (0.8, "b"), "unranked": (None, "")}
    lines = [
        Line(name, "quick", {"lgg": row_of(name, "lgg", mean or 0.99)}, mean, number if mean else None, "", letters)
        for number, (name, (mean, letters)) in enumerate(means.items(), start=1)
    ]
    (group,) = groups([row_of("first", "lgg", 0.9)])
    board = replace(group, lines=tuple(lines))
    assert verdict(board) == (
        "first leads with a mean of 0.900, 0.050 ahead of second. Can't be told from it: second. "
        "The best that can: third, 0.100 behind."
    )
    assert verdict(board) in pages.as_markdown([board])
    assert verdict(replace(board, lines=tuple(replace(line, letters="") for line in lines))) == ""
    alone = replace(lines[0], letters="aa")
    second = replace(lines[1], letters="a", mean=0.8997)
    assert verdict(replace(board, lines=(alone, second))) == (
        "first leads with a mean of 0.900, less than 0.001 ahead of second. It can be told from all others."
    )


def test_settings_of_one_method_have_lines_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: rows -->\n<!-- end -->\n", "utf-8")
    facts = {"preset": "quick", "config": {"stages": [1], "epochs": None}}
    plain = row_of("toy", "lgg", 0.6, **facts)
    other = row_of("toy", "lgg", 0.7, run_id="other", **facts | {"config": {"stages": [1], "epochs": 0}})
    written = made_anew(page, Material([plain, other]))
    assert "| toy, epochs 0 | 0.700 [0.650, 0.750] |\n| toy | 0.600 [0.550, 0.650] |" in written


def test_rows_are_the_same_up_to_rounding() -> None:
    row = row_of("toy", "lgg", 0.6)
    assert differences(row, row_of("toy", "lgg", 0.6 * (1 + 1e-9))) == []
    assert differences(row, row_of("toy", "lgg", 0.6 * (1 + 1e-5))) == ["image_auroc"]
    assert differences(row, row_of("toy", "lgg", 0.6, shots=2, effective_groups={"normal": 99.0})) == [
        *("shots", "effective_groups")
    ]
