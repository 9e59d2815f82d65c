"""Generated parts of pages that people write: a table that a command made stands between two comments.

    <!-- generated: rows method=multistage,patchcore preset=quick -->
    ...                                                                 whatever stood here is replaced
    <!-- end -->

A part that begins with `rows` is made of accepted rows: one table per K, methods by targets, of the rows that its
conditions choose. Any other is filled by the command that bears its name.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from medfsad_bench.board.pages import auroc_tables
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_text
from medfsad_bench.results.row import Row

_PART = re.compile(r"(?ms)^<!-- generated: (?P<name>[^\n]*?) -->\n(?P<content>.*?)^<!-- end -->$")
_CONDITIONS = ("method", "preset", "target", "benchmark", "shots", "seed")
ROWS = "rows"


def fill(page: Path, name: str, content: str) -> None:
    """Write a part of a page anew.

    Args:
        page: Markdown file.
        name: Of the part.
        content: Markdown.

    Raises:
        ResultsError: If the page isn't there or hasn't that part.
    """
    text = text_with_part(page, name)
    write_text(page, _replaced(text, lambda part, before: content if part == name else before))


def with_rows(page: Path, rows: Sequence[Row]) -> str:
    """A page's text with its parts of rows made anew.

    Raises:
        ResultsError: If the page isn't there, or a condition is unknown.
    """

    def made(part: str, before: str) -> str:
        kind, *conditions = part.split()
        return auroc_tables(_chosen(page, rows, conditions)) if kind == ROWS else before

    return _replaced(page_text(page), made)


def text_with_part(page: Path, name: str) -> str:
    """A page as it stands, if it has a part of that name: to be asked before long work that ends with `fill`.

    Raises:
        ResultsError: If the page isn't there or hasn't that part.
    """
    text = page_text(page)
    if name not in (names := _names(text)):
        others = f"It has {', '.join(map(repr, names))}. " if names else ""
        raise ResultsError(
            f"{page} has no part {name!r}. {others}Write '<!-- generated: {name} -->' and '<!-- end -->' on lines of "
            "their own where it is to stand; nothing was changed."
        )
    return text


def page_text(page: Path) -> str:
    """A page as it stands.

    Raises:
        ResultsError: If it can't be read.
    """
    try:
        return page.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ResultsError(f"{page} can't be read ({error}). Expected a Markdown page with generated parts.") from error


def _names(text: str) -> list[str]:
    return [match["name"] for match in _PART.finditer(text)]


def _replaced(text: str, content_of: Callable[[str, str], str]) -> str:
    def part(match: re.Match[str]) -> str:
        content = content_of(match["name"], match["content"]).strip("\n")
        return f"<!-- generated: {match['name']} -->\n\n{content}\n\n<!-- end -->"

    return _PART.sub(part, text)


def _chosen(page: Path, rows: Sequence[Row], conditions: Sequence[str]) -> list[Row]:
    """The strict rows that meet every condition, `name=value,value`."""
    wanted = {name: values.split(",") for name, _, values in (part.partition("=") for part in conditions)}
    if unknown := sorted(set(wanted) - set(_CONDITIONS)):
        raise ResultsError(
            f"{page}: a generated part chooses rows by {unknown[0]!r}. Expected conditions such as preset=quick, by "
            f"{', '.join(_CONDITIONS)}."
        )
    return [
        row
        for row in rows
        if row.protocol == "strict" and all(str(getattr(row, name)) in values for name, values in wanted.items())
    ]
