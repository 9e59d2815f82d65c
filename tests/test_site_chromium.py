"""The site in a browser: figures and downloads are those of the command line, by mouse, keyboard and phone."""

import io
import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bench.bench_site import choices, rows_of
from board_rows import row_of
from test_site import benchmark_rows
from test_site_browser import CHROMIUM, Tab, board, browser  # noqa: F401 - a fixture

from medfsad_bench.board.groups import Group, groups
from medfsad_bench.board.labels import verdict
from medfsad_bench.board.pages import as_json
from medfsad_bench.board.site.build import write_site
from medfsad_bench.metrics.metric import METRICS
from medfsad_bench.results.row import Row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SMALL = {"effective_groups": {"normal": 9.0, "anomalous": 9.0}}


def all_rows() -> list[Row]:
    """Rows of two metrics at two shots; a target is confounded, another small."""
    rows = [*benchmark_rows(), *(row_of(name, "odir_dr", 0.6, **SMALL) for name in ("mean_distance", "shortcut"))]
    rows += [row_of("anomalib:padim", "odir_dr", 0.9, **SMALL)]
    both = [
        row.model_copy(
            update={"metrics": {**row.metrics, "image_average_precision": moved(row.metrics["image_auroc"])}}
        )
        for row in rows
    ]
    return [*both, *(row_of(name, "lgg", 0.55, shots=8, run_id=f"{name}-8") for name in ("mean_distance", "shortcut"))]


def moved(estimate: Any) -> Any:
    """Another metric's figure: the order of methods is turned around."""
    return estimate.model_copy(update={"value": 1 - estimate.value, "low": 1 - estimate.high, "high": 1 - estimate.low})


ROWS = all_rows()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chromium") / "site"
    write_site(ROWS, {}, folder)
    return folder


def table_of(tab: Tab) -> list[list[str]]:
    """Texts of the board's cells, line by line, without the drawn axis."""
    script = "all => all.map(tr => [...tr.children].map(cell => cell.innerText.split('\\n')[0].trim()))"
    lines = tab.page.locator("#board tbody tr").evaluate_all(script)
    return [[*line[:4], *line[5:]] for line in lines]


def expected_of(group: Group) -> list[list[str]]:
    """The same from `leaderboard --format json`."""
    content = json.loads(as_json([row for line in group.lines for row in line.rows.values()], [group]))
    rows = {row["run_id"]: row["metrics"][group.metric.name] for row in content["rows"]}
    (of_group,) = content["groups"]
    lines = []
    for line in of_group["lines"]:
        mean = line[f"mean_{group.metric.name}"]
        ends = "" if line["interval"] is None else " [{:.3f}, {:.3f}]".format(*line["interval"])
        cells = [rows[line["runs"][name]] if name in line["runs"] else None for name in of_group["targets"]]
        figures = ["–" if e is None else f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]" for e in cells]
        told = "–" if mean is None else f"{mean:.3f}{ends}"
        lines.append([str(line["rank"] or "–"), line["label"], told, line["letters"], "12", *figures])
    return lines


@pytest.mark.parametrize("metric", ["image_auroc", "image_average_precision"])
@pytest.mark.parametrize("left_out", [(), ("small",), ("confounded",), ("small", "confounded")])
def test_every_cell_is_that_of_the_json(browser: Any, site: Path, metric: str, left_out: tuple[str, ...]) -> None:  # noqa: F811
    without = {"small": {"odir_dr"}, "confounded": {"brain_tumor"}}
    gone = set().union(*(without[kind] for kind in left_out))
    rows = [row for row in ROWS if row.target not in gone and row.shots == 4]
    (group,) = groups(rows, metric=METRICS[metric])
    tab = board(browser, site, f"#shots=4&metric={metric}" + "".join(f"&{kind}=1" for kind in left_out))
    shown = table_of(tab)
    assert tab.page.locator("#board .lead").inner_text() == verdict(group)
    assert [[*line[:3], line[3].replace(" ", ""), *line[4:]] for line in shown] == expected_of(group)
    assert tab.faults == []


def test_the_printed_command_names_the_targets_that_are_left(browser: Any, site: Path) -> None:  # noqa: F811
    tab = board(browser, site, "#shots=4&small=1&confounded=1&metric=image_average_precision")
    command = tab.page.locator("#board code").inner_text()
    kept = ["chest_nih", "histology_lung", "lgg"]
    assert command.startswith("medfsad leaderboard --track 'medfsad-open, 4 shots, 64 px'")
    assert command.endswith("--metric image_average_precision " + " ".join(f"--target {name}" for name in kept))


def test_whoever_asks_for_nothing_sees_the_track_of_most_lines(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    small = [row_of("alone", "lgg", 0.9, size_px=128)]
    write_site([*small, *(row_of(name, "lgg", 0.6, size_px=256) for name in ("one", "other"))], {}, tmp_path / "site")
    tab = board(browser, tmp_path / "site", "")
    assert "256 px" in tab.page.locator("#title").inner_text()
    assert [line[1] for line in table_of(tab)] == ["one", "other"]
    assert tab.faults == []


def test_downloads_by_click_are_the_rows(browser: Any, site: Path) -> None:  # noqa: F811
    tab = board(browser, site)
    values = {(row.run_id, name): e.value for row in ROWS for name, e in row.metrics.items()}
    for name, read in (("CSV", pd.read_csv), ("Parquet", pd.read_parquet)):
        with tab.page.expect_download() as download:
            tab.page.get_by_role("link", name=name, exact=True).click()
        table = read(io.BytesIO(Path(download.value.path()).read_bytes()))
        assert dict(zip(zip(table["run_id"], table["metric"], strict=True), table["value"], strict=True)) == values


def test_the_board_is_worked_by_keyboard_alone(browser: Any, site: Path) -> None:  # noqa: F811
    tab = board(browser, site, "#shots=4")
    focused = "document.activeElement.name || document.activeElement.innerText || document.activeElement.className"
    reached = []
    for _ in range(24):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate(focused))
    assert reached[0] == "To the content"
    assert reached.index("benchmark") < reached.index("shots") < reached.index("metric") < reached.index("small")
    assert "drawn" in reached
    tab.page.focus("select[name=shots]")
    tab.page.keyboard.press("ArrowDown")
    assert "shots=8" in tab.page.url
    tab.page.focus("input[name=drawn]")
    tab.page.keyboard.press("Space")
    assert tab.page.locator("#board tbody td.number svg").count() > 0
    outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "whoever can't use a mouse sees where they are"


@pytest.mark.parametrize("name", ["index", "compare", "changes", "versions/*", "datasets/lgg"])
def test_a_phone_scrolls_tables_and_never_the_page(browser: Any, site: Path, name: str) -> None:  # noqa: F811
    page = next(site.glob(f"{name}.html"))
    tab = Tab(browser, page.as_uri(), viewport={"width": 360, "height": 740})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.faults == []
    wide = "all => all.filter(box => box.scrollWidth > box.clientWidth && box.tabIndex < 0).length"
    assert tab.page.eval_on_selector_all(".scroll", wide) == 0, "what scrolls can be reached by keyboard"


def test_lines_that_cant_be_told_apart_share_a_bar(browser: Any, site: Path) -> None:  # noqa: F811
    tab = board(browser, site, "#shots=4")
    script = "all => all.map(cell => (cell.style.background.match(/linear-gradient/g) || []).length)"
    bars = tab.page.locator("#board td.letters").evaluate_all(script)
    letters = [len(line[3].replace(" ", "")) for line in table_of(tab)]
    assert bars == letters
    assert sum(bars) > 0


@pytest.mark.long
def test_a_board_of_200_methods_answers_a_choice_at_once_and_shows_the_rest_on_demand(
    browser: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    """`tests/bench/bench_site.py` measures the goal of 100 ms; a busy machine has five times as long here."""
    rows = [row for row in rows_of(200) if row.target == "aptos" and row.shots < 8]
    write_site(rows, {}, tmp_path / "site")
    tab = board(browser, tmp_path / "site")
    assert tab.page.locator("#board tbody tr").count() == 30
    tab.page.get_by_role("button", name="Show all 200 lines").click()
    assert tab.page.locator("#board tbody tr").count() == 200
    assert "all=1" in tab.page.url
    took = choices(tmp_path / "site" / "index.html", browser)
    assert statistics.median(took.values()) < 500, took
