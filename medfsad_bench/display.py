"""Text that others wrote (a row, an image's id, an external detector) made fit for a terminal and for pages.

A row is read by people. An escape sequence in it could repaint what a reviewer sees, a right-to-left mark could turn a
figure around, and a bar or a bracket could move a table's columns or plant a link.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

_MARKDOWN = re.compile(r"[\\`*|<~&]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")  # not the brackets of an interval


def visible(text: str) -> str:
    r"""The text with every character that isn't printed (ESC, marks of direction, NUL) written out as `\uXXXX`.

    Line ends and tabs stay. In JSON the result means the same, as these characters stand inside strings alone.

    >>> visible("0.98\x1b[2K\u202e")
    '0.98\\u001b[2K\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() else _written_out(char) for char in text)


def markdown_text(text: str) -> str:
    r"""The text as Markdown that shows it as it is, on one line.

    >>> markdown_text("a|b [x](http://y)")
    'a\\|b [x\\](http://y)'
    """
    return _MARKDOWN.sub(r"\\\g<0>", visible(" ".join(text.split())))


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells as a Markdown table."""
    lines = (f"| {' | '.join(map(markdown_text, row))} |" for row in rows)
    return "\n".join([f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *lines, ""])


def html_templates(package: str, folder: str) -> "Environment":
    """Templates of pages: every text is escaped and made visible, and a name that a template isn't given is an error.

    Args:
        package: That the templates come with.
        folder: Of the templates in the package.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )


def _written_out(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
