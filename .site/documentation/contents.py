"""Which Markdown file of the repository is which page: `contents.toml`, the one table of contents."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from documentation.errors import SiteError

CONTENTS = ".site/contents.toml"
BOARD = "leaderboard/LEADERBOARD.md"  # no page of its own: the front page of the site shows it

Generated = Literal["", "commands", "interface"]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the documentation.

    Attributes:
        name: Of its file, without `.html`.
        title: Its heading, and its entry in the list of pages.
        chapter: Under which it is listed; empty for a page that only other pages lead to.
        file: The Markdown that it shows, from the root of the repository, as in `baselines/README.md`.
        section: Heading of the section of the file that it shows; empty for the whole file, but for those sections
            that are pages of their own.
        generated: What the program itself adds to the file's text.
    """

    name: str
    title: str
    chapter: str
    file: str
    section: str = ""
    generated: Generated = ""


def read_contents(root: Path) -> list[Page]:
    """All pages in the order in which they are listed, and in which their examples run.

    Args:
        root: Of the repository.

    Raises:
        SiteError: If the table names a file that isn't there, a name twice, or leaves out a Markdown file.
    """
    chapters = tomllib.loads((root / CONTENTS).read_text("utf-8"))["chapter"]
    pages = [page for chapter in chapters for entry in chapter["pages"] for page in _pages(root, chapter, entry)]
    names = [page.name for page in pages]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SiteError(f"{CONTENTS} gives the name {twice[0]!r} to two pages. Choose another for one of them.")
    listed = {page.file for page in pages}
    if unlisted := sorted(set(_documents(root)) - listed):
        raise SiteError(
            f"{', '.join(unlisted)}: not in {CONTENTS}, so that no page shows it. Add a line to one of its chapters."
        )
    return pages


def _pages(root: Path, chapter: dict[str, Any], entry: dict[str, Any]) -> Iterator[Page]:
    """The page of an entry, and those that are `below` it: files beside its own, each under its own heading."""
    below = entry.pop("below", None)
    page = Page(chapter=chapter["title"], **entry)
    file = root / page.file
    if not file.is_file():
        raise SiteError(f"{CONTENTS} lists {page.file}, which doesn't exist. Mend the line, or write the file.")
    yield page
    for path in sorted(file.parent.glob(below)) if below else ():
        heading = re.search(r"(?m)^# (.+)$", path.read_text("utf-8"))
        yield Page(path.stem, heading[1] if heading else path.stem, "", path.relative_to(root).as_posix())


def _documents(root: Path) -> Iterator[str]:
    """Every Markdown file that is to be a page."""
    folders = (".github", ".site", "baselines", "data_manifests", "leaderboard", "medfsad_bench", "methods")
    for path in (*root.glob("*.md"), *(path for folder in folders for path in (root / folder).rglob("*.md"))):
        if (name := path.relative_to(root).as_posix()) != BOARD:
            yield name
