"""Generated parts of pages that people write: a table that a command made stands between two comments.

    <!-- generated: rows method=multistage,patchcore preset=quick -->
    ...                                                                 whatever stood here is replaced
    <!-- end -->

A part that begins with `rows` is made of accepted rows with clean supports: one table per K, methods by targets, of
the rows that its conditions choose. One that begins with `robustness` is made of those with contaminated supports and
of their scores: a line per method, target and K, or, for `robustness means`, per method and K. One that begins with
`protocols` is made of the studies that `medfsad protocols` left: a line per habit of the published protocol, or, for
`protocols short`, three. Any other is filled by the command that bears its name, and can't be made anew without its
work; it ends with a digest of its content, `<!-- end 0123456789abcdef -->`, by which a change by hand shows.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from medfsad_bench.board.pages import NO_SUCH_ROW, auroc_tables
from medfsad_bench.board.robustness import means, points_of, table_of_points
from medfsad_bench.board.significance import Evidence
from medfsad_bench.display import markdown_table
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_text
from medfsad_bench.results.habits import HabitStudy
from medfsad_bench.results.row import Row

R = TypeVar("R", Row, HabitStudy)
_PART = re.compile(r"(?ms)^<!-- generated: (?P<name>[^\n]*?) -->\n(?P<content>.*?)^<!-- end(?: \w+)? -->$")
_CONDITIONS = ("method", "preset", "target", "benchmark", "shots", "seed")
_MEANS, _SHORT = "means", "short"
_SMOOTHED_ALONE = "published, but each map smoothed by itself"  # the habit that does nearly all of it


@dataclass(frozen=True, slots=True)
class Material:
    """What parts of pages are made of.

    Attributes:
        rows: The accepted ones.
        evidence: Their scores.
        studies: Of the published protocol's habits.
    """

    rows: Sequence[Row]
    evidence: Evidence = field(default_factory=dict)
    studies: Sequence[HabitStudy] = ()


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
    write_text(page, _PART.sub(lambda part: _whole(name, content) if part["name"] == name else part[0], text))


def writer(page: Path | None, name: str) -> Callable[[str], object]:
    """What takes a table that a script makes: a part of a page, or, where there is none, standard output.

    Args:
        page: Markdown file. That it lacks the part is told here, so before the work.
        name: Of the part.

    Raises:
        ResultsError: If the page isn't there or hasn't that part.
    """
    if page is None:
        return lambda content: sys.stdout.write(content.rstrip("\n") + "\n")
    text_with_part(page, name)
    return partial(fill, page, name)


def made_anew(page: Path, material: Material) -> str:
    """A page's text with its parts made anew that are made of accepted results.

    Args:
        page: Markdown file.
        material: What they are made of.

    Raises:
        ResultsError: If the page isn't there, or a condition is unknown.
    """

    def made(part: re.Match[str]) -> str:
        kind, *words = part["name"].split()
        return _whole(part["name"], _OF_RESULTS[kind](page, material, words)) if kind in _OF_RESULTS else part[0]

    return _PART.sub(made, page_text(page))


def parts_changed_by_hand(page: Path) -> list[str]:
    """Names of the parts that commands wrote and that aren't as they were written; empty ones are still to come.

    Raises:
        ResultsError: If the page can't be read.
    """
    parts = [part for part in _PART.finditer(page_text(page)) if part["content"].strip()]
    return [part["name"] for part in parts if part[0] != _whole(part["name"], part["content"])]


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


def _whole(name: str, content: str) -> str:
    """A part with its two lines; those that aren't made of results bear their digest."""
    content = content.strip("\n")
    of_results = name.split()[0] in _OF_RESULTS
    mark = "" if of_results else f" {hashlib.sha256(content.encode()).hexdigest()[:16]}"
    return f"<!-- generated: {name} -->\n\n{content}\n\n<!-- end{mark} -->"


def _rows(page: Path, material: Material, words: Sequence[str]) -> str:
    strict = [row for row in material.rows if row.protocol == "strict" and not row.contaminated_supports]
    return auroc_tables(_chosen(page, strict, words))


def _robustness(page: Path, material: Material, words: Sequence[str]) -> str:
    chosen = _chosen(page, material.rows, [word for word in words if word != _MEANS])
    points = points_of(chosen, material.evidence)
    shown = means(points) if _MEANS in words else points
    return markdown_table(*table_of_points(shown)) if shown else NO_SUCH_ROW


def _protocols(page: Path, material: Material, words: Sequence[str]) -> str:
    studies = _chosen(page, material.studies, [word for word in words if word != _SHORT])
    if not studies:
        return "No such study is kept yet.\n"
    lines = list(studies[0].figures)
    lines = [lines[0], _SMOOTHED_ALONE, lines[-1]] if _SHORT in words else lines
    of_one_method = len({study.method for study in studies}) == 1
    columns = [study.target if of_one_method else f"{study.method} on {study.target}" for study in studies]
    cells = [[study.figures[line].text if line in study.figures else "–" for study in studies] for line in lines]
    return markdown_table(
        ["protocol", *columns], [[line, *of_line] for line, of_line in zip(lines, cells, strict=True)]
    )


def _chosen(page: Path, results: Sequence[R], conditions: Sequence[str]) -> list[R]:
    """Those that meet every condition, `name=value,value`."""
    wanted = {name: values.split(",") for name, _, values in (part.partition("=") for part in conditions)}
    if unknown := sorted(set(wanted) - set(_CONDITIONS)):
        raise ResultsError(
            f"{page}: a generated part chooses rows by {unknown[0]!r}. Expected conditions such as preset=quick, by "
            f"{', '.join(_CONDITIONS)}."
        )
    return [
        result for result in results if all(str(getattr(result, name)) in values for name, values in wanted.items())
    ]


_OF_RESULTS = {"rows": _rows, "robustness": _robustness, "protocols": _protocols}
