"""The documentation in a browser, opened from disk; skips where there is no playwright or no Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_site import benchmark_rows
from test_site_browser import Tab, browser  # noqa: F401 - a fixture
from test_site_browser import pytestmark as browsers_marks

from documentation.build import build_site
from documentation.examples import Workspace

ROOT = Path(__file__).resolve().parent.parent
AXE = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
pytestmark = browsers_marks

DOCUMENTED = ("start", "own-images", "commands", "interface", "datasets", "decisions", "baselines-results", "search")
BOARD = ("index", "compare", "protocol", "changes", "methods/shortcut", "datasets/lgg", "cells/shortcut-lgg-4shot")
IN_DARK = ("docs/commands", "docs/search", "index", "compare", "datasets/lgg", "cells/shortcut-lgg-4shot")
PAGES = [*(f"docs/{name}" for name in DOCUMENTED), *BOARD]


class Unrun(Workspace):
    """Examples as they look once they ran, without running them."""

    def shell(self, text: str) -> str:
        """A line as wide as a terminal."""
        return "printed " * 10 + "\n"

    python = shell


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "site"
    build_site(ROOT, folder, Unrun(folder.parent), rows=benchmark_rows())
    return folder


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:  # noqa: F811
    tab = Tab(browser, (site / "docs" / "start.html").as_uri())
    yield tab
    tab.page.context.close()


def opened(browser: Any, site: Path, name: str, **options: Any) -> Tab:  # noqa: F811
    return Tab(browser, (site / f"{name}.html").as_uri(), **options)


@pytest.mark.parametrize("width", [360, 1280])
def test_pages_open_from_disk_without_a_fault_and_fit(browser: Any, site: Path, width: int) -> None:  # noqa: F811
    tab = opened(browser, site, "index", viewport={"width": width, "height": 800})
    for name in PAGES:
        tab.page.goto((site / f"{name}.html").as_uri())
        assert tab.faults == [], name
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert tab.page.locator("h1").count() == 1


@pytest.mark.parametrize(
    ("name", "scheme"), [*((name, "light") for name in PAGES), *((name, "dark") for name in IN_DARK)]
)
def test_axe_finds_nothing_serious(browser: Any, site: Path, name: str, scheme: str) -> None:  # noqa: F811
    tab = opened(browser, site, name, color_scheme=scheme)
    tab.page.context.set_default_timeout(60_000)
    violations = AXE.Axe().run(tab.page).response["violations"]
    assert [
        (each["id"], each["impact"], [node["html"][:200] for node in each["nodes"][:3]])
        for each in violations
        if each["impact"] in ("serious", "critical")
    ] == []
    tab.page.context.close()


def test_a_search_by_keyboard_leads_to_the_passage(tab: Tab) -> None:
    tab.page.locator("input[name=q]").focus()
    tab.page.keyboard.type("hold-out organ")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/docs/search.html?q=hold-out+organ")
    links = tab.page.locator("#results a")
    assert "Protocol: What a method sees" in links.all_inner_texts()
    assert tab.page.locator("#results mark").count() > 0
    link = tab.page.get_by_role("link", name="Protocol: What a method sees")
    link.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/docs/protocol.html#what-a-method-sees")
    box = tab.page.locator("#what-a-method-sees").bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 700, "the heading is in view"
    assert tab.faults == []


def test_a_search_goes_on_while_one_types_and_counts_what_it_found(browser: Any, site: Path) -> None:  # noqa: F811
    tab = opened(browser, site, "docs/search")
    assert tab.page.locator("#index").is_visible()
    tab.page.locator("input[name=q]").fill("d24fad")
    assert not tab.page.locator("#index").is_visible()
    assert "D²4FAD" in tab.page.inner_text("#results"), "as it is typed on a keyboard"
    tab.page.locator("input[name=q]").fill("xyzzy")
    assert tab.page.inner_text("#count") == "0 passages"
    tab.page.locator("input[name=q]").fill("<b>(")
    assert tab.faults == []


def test_without_javascript_pages_are_whole_and_the_search_is_an_index(browser: Any, site: Path) -> None:  # noqa: F811
    tab = opened(browser, site, "docs/commands", java_script_enabled=False)
    assert "medfsad verify medfsad-data/demo/*.h5" in tab.page.inner_text("main")
    assert "--save-maps" in tab.page.inner_text("main")
    tab.page.goto((site / "docs" / "search.html").as_uri())
    tab.page.get_by_role("link", name="What a method sees", exact=True).click()
    assert tab.page.url.endswith("protocol.html#what-a-method-sees")


def test_the_keyboard_reaches_content_pages_and_wide_blocks(tab: Tab) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    tab.page.keyboard.press("Enter")
    assert tab.page.url.endswith("#content")
    tab.page.get_by_role("link", name="Command line", exact=True).first.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/docs/commands.html")
    tab.page.locator("pre.printed").first.focus()
    assert tab.page.evaluate("document.activeElement.className") == "printed"


def test_board_and_documentation_are_one_site(tab: Tab) -> None:
    tab.page.get_by_role("link", name="board", exact=True).click()
    assert tab.page.url.partition("#")[0].endswith("/site/index.html")
    assert tab.page.locator("#board table").is_visible()
    tab.page.get_by_role("link", name="documentation", exact=True).click()
    assert tab.page.locator("nav.pages [aria-current=page]").inner_text() == "Start here"


def test_on_paper_there_is_the_text_alone(browser: Any, site: Path) -> None:  # noqa: F811
    tab = opened(browser, site, "docs/commands")
    tab.page.emulate_media(media="print")
    for hidden in ("nav.pages", "header .search", ".to-pages"):
        assert not tab.page.locator(hidden).is_visible()
    assert tab.page.locator("pre.printed").first.is_visible()
