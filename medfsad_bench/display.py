"""Text that others wrote (a row, an image's id, an external detector) made fit for a terminal and a Markdown page.

A row is read by people. An escape sequence in it could repaint what a reviewer sees, a right-to-left mark could turn a
figure around, and a bar or a bracket could move a table's columns or plant a link.
"""

import re
from collections.abc import Iterable, Sequence

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


def _written_out(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
