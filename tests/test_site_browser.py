"""The site in a browser, as whoever opens it from disk meets it; skips where there is no playwright or no Chromium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_rows import row_of
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_site import benchmark_rows

from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_json
from medfsad_bench.board.site.build import write_site

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = [*benchmark_rows(), *(row_of("mean_distance", "lgg", 0.85, shots=8, run_id="at-8"),)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "site"
    write_site(ROWS, {}, folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Tab:
    """A page that notes what went wrong on it, and what it asked of anybody."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._note)
        self.page.goto(address)

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("file://", "data:")):
            self.faults.append(request.url)

    def column(self, number: int) -> list[str]:
        return list(self.page.locator(f"#board tbody tr > :nth-child({number})").all_inner_texts())


def board(browser: Any, site: Path, hash_: str = "", **options: Any) -> Tab:
    return Tab(browser, f"{(site / 'index.html').as_uri()}{hash_}", **options)


@pytest.mark.parametrize("width", [360, 1280])
def test_pages_of_every_kind_open_from_disk_without_a_fault_and_fit(browser: Any, site: Path, width: int) -> None:
    names = ("index", "compare", "protocol", "changes", "methods/shortcut", "datasets/lgg", "cells/shortcut-lgg-4shot")
    tab = Tab(browser, (site / "index.html").as_uri(), viewport={"width": width, "height": 800})
    for name in names:
        tab.page.goto((site / f"{name}.html").as_uri())
        assert tab.faults == [], name
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert tab.page.locator("h1").count() == 1


def test_figures_on_the_page_are_those_of_the_json(browser: Any, site: Path) -> None:
    shown = json.loads(as_json(ROWS, groups(ROWS)))
    (expected,) = (group for group in shown["groups"] if group["shots"] == 4)
    figures = {row["run_id"]: row["metrics"]["image_auroc"] for row in shown["rows"]}
    tab = board(browser, site, "#shots=4")
    assert tab.column(1) == [str(line["rank"] or "–") for line in expected["lines"]]
    assert [text.split("\n")[0] for text in tab.column(2)] == [line["label"] for line in expected["lines"]]
    for number, line in enumerate(expected["lines"]):
        mean = "–" if line["mean_image_auroc"] is None else f"{line['mean_image_auroc']:.3f}"
        assert tab.column(3)[number].startswith(mean)
        assert tab.column(4)[number].replace(" ", "") == line["letters"]
        for column, target in enumerate(expected["targets"]):
            cell = tab.column(7 + column)[number]
            if target not in line["runs"]:
                assert cell == "–"
                continue
            figure = figures[line["runs"][target]]
            assert cell == f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def test_filters_live_in_the_address(browser: Any, site: Path) -> None:
    tab = board(browser, site)
    assert "shots=4" in tab.page.url
    tab.page.select_option("select[name=shots]", "8")
    assert "shots=8" in tab.page.url
    assert tab.column(2) == ["mean_distance"]
    again = board(browser, site, "#" + tab.page.url.partition("#")[2])
    assert again.column(2) == ["mean_distance"]
    assert again.page.input_value("select[name=shots]") == "8"
    assert board(browser, site, "#shots=77&metric=nonsense&benchmark=%3Cb%3E").column(1), "a bad address shows a board"


def test_confounded_sets_can_be_left_out(browser: Any, site: Path) -> None:
    tab = board(browser, site, "#shots=4")
    first = tab.column(2)[0]
    tab.page.check("input[name=confounded]")
    assert "confounded=1" in tab.page.url
    assert tab.column(2)[0] != first
    assert "brain_tumor" not in tab.page.inner_text("#board thead")
    assert "--target chest_nih" in tab.page.inner_text("#board")


def test_columns_sort_by_keyboard_and_say_so(browser: Any, site: Path) -> None:
    tab = board(browser, site, "#shots=4")
    button = tab.page.locator("#board th button", has_text="lgg")
    button.focus()
    tab.page.keyboard.press("Enter")
    values = [float(text.split()[0]) for text in tab.column(10) if text != "–"]
    assert values == sorted(values, reverse=True)
    heading = tab.page.locator("#board th[aria-sort]")
    assert (heading.get_attribute("aria-sort"), heading.count()) == ("descending", 1)
    tab.page.keyboard.press("Enter")
    values = [float(text.split()[0]) for text in tab.column(10) if text != "–"]
    assert values == sorted(values)
    assert "sort=target" in tab.page.url


def test_without_javascript_there_is_a_table_of_every_track(browser: Any, site: Path) -> None:
    tab = board(browser, site, java_script_enabled=False)
    assert tab.page.locator("noscript table").count() == 2
    assert "0.800 [0.750, 0.850]" in tab.page.inner_text("noscript")
    assert not tab.page.locator("#filters").is_visible()


def test_on_paper_there_are_no_filters(browser: Any, site: Path) -> None:
    tab = board(browser, site)
    tab.page.emulate_media(media="print")
    assert not tab.page.locator("#filters").is_visible()
    assert tab.page.locator("#board table").is_visible()


def test_dark_and_light_differ(browser: Any, site: Path) -> None:
    colours = {
        board(browser, site, color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(colours) == 2
