"""Markdown: links lead somewhere, lines are short, a README shows one table of numbers at most."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".github", ".site", "baselines", "data_manifests", "leaderboard", "medfsad_bench", "methods", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
WRITTEN = [path for path in DOCUMENTS if path.name != "LEADERBOARD.md"]  # the board is made by `medfsad leaderboard`

named = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())


@named
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in links(path.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{target} doesn't exist"
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), f"{target}: no such heading"


@named
def test_lines_outside_tables_are_shorter_than_120_characters(path: Path) -> None:
    lines = enumerate(path.read_text("utf-8").splitlines(), start=1)
    assert [number for number, line in lines if len(line) >= 120 and not line.startswith("|")] == []


@pytest.mark.parametrize(
    "path", [path for path in WRITTEN if path.name == "README.md"], ids=lambda path: path.parent.name
)
def test_a_readme_shows_one_table_of_numbers_at_most(path: Path) -> None:
    assert sum(map(is_of_numbers, tables(path.read_text("utf-8")))) <= 1


def test_the_path_of_the_data_names_every_folder_it_goes_through() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## The path of the data")[1].split("\n## ")[0]
    folders = {path.name for path in (ROOT / "medfsad_bench").iterdir() if (path / "__init__.py").is_file()}
    assert folders == {name for name in folders if f"{name}/" in section}


def test_every_decision_is_in_the_index_and_has_the_form() -> None:
    folder = ROOT / ".github" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    for path in sorted(folder.glob("[0-9]*.md")):
        text = path.read_text("utf-8")
        assert f"({path.name})" in index
        assert text.startswith(f"# {path.name[:4]} ")
        assert re.findall(r"(?m)^## (.*)$", text) == ["Context", "Decision", "Consequences"]
        assert re.search(r"(?m)^Status: (accepted|proposed|replaced by \d{4}), \d{4}-\d\d-\d\d", text)


def test_a_heading_becomes_the_anchor_that_its_page_gives_it() -> None:
    assert anchors("## Native and anomalib's\n\n## D²4FAD, *again*\n") == {"native-and-anomalibs", "d²4fad-again"}


def links(text: str) -> list[str]:
    """Targets of links and pictures within the repository; code isn't looked at."""
    prose = re.sub(r"(?ms)^```.*?^```|^ {4}[^\n]*$|`[^`\n]*`", "", text)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]


def anchors(text: str) -> set[str]:
    """What a link to a heading is called: small letters, dashes for spaces, no punctuation."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def tables(text: str) -> list[list[list[str]]]:
    """Each table as its lines of cells, without header and rule."""
    blocks = re.findall(r"(?m)(?:^\|.*\n)+", text + "\n")
    return [[line.strip("| ").split(" | ") for line in block.splitlines()[2:]] for block in blocks]


def is_of_numbers(table: list[list[str]]) -> bool:
    """Whether most cells right of the first column start with a number."""
    cells = [cell for line in table for cell in line[1:]]
    return sum(bool(re.match(r"[-+−]?\d", cell.strip())) for cell in cells) > len(cells) / 2
