"""Tables as spreadsheets and scripts write them: any of the usual encodings and separators, all cells as text."""

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfsad_bench.errors import DownloadError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt"})
_AS_TEXT: dict[str, Any] = {"dtype": str, "na_filter": False, "index_col": False, "skip_blank_lines": False}
_SEPARATORS = ",;\t|"
_STATED = re.compile(r"^sep=(.)\s*$", re.IGNORECASE)  # a line that Excel writes and reads
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table; its cells have no blanks at their ends."""

    path: Path
    header: tuple[str, ...]
    rows: dict[int, dict[str, str]]  # by the number of their line, for messages


def read_table(path: Path, *, header_only: bool = False) -> TableFile:
    """Read a table in UTF-8, UTF-16 or cp1252, separated by comma, semicolon, tab or bar, quoted or not.

    Raises:
        DownloadError: If it can't be read, or a row has more cells than the header.
    """
    import pandas as pd

    try:
        text = _decoded(path.read_bytes())
        first, _, rest = text.partition("\n")
        stated = _STATED.match(first)
        body = (rest if stated else text).lstrip("\r\n")
        separator = stated[1] if stated else _separator(body.partition("\n")[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells beyond the header would be dropped
            rows_wanted = 0 if header_only else None
            frame = pd.read_csv(io.StringIO(body), sep=separator, nrows=rows_wanted, **_AS_TEXT)
    except pd.errors.EmptyDataError:
        return TableFile(path, (), {})
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DownloadError(
            f"{path}: can't be read as a CSV table ({reason}). Expected text with a header, as many cells in each row, "
            "separated by comma, semicolon or tab; save it anew as CSV, or download it again."
        ) from error
    frame = frame.fillna("").rename(columns=lambda name: str(name).strip())
    empty = [name for name in frame.columns if name.startswith("Unnamed:") and not frame[name].any()]
    frame = frame.drop(columns=empty).map(str.strip)
    frame = frame[(frame != "").any(axis=1)]
    lines = frame.index + text[: len(text) - len(body)].count("\n") + 2
    rows = ({str(name): str(cell) for name, cell in row.items()} for row in frame.to_dict("records"))
    return TableFile(path, tuple(map(str, frame.columns)), dict(zip(lines, rows, strict=True)))


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a download's own table that must have `columns`.

    Raises:
        DownloadError: If it can't be read or lacks a column.
    """
    table = read_table(path)
    missing = [column for column in columns if column not in table.header]
    if missing:
        raise DownloadError(
            f"{path}: column(s) {', '.join(missing)} not found; the table has {', '.join(table.header) or 'no header'}."
            " Use the table of the original download."
        )
    return list(table.rows.values())


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if content[1:2] == b"\0" or content[:1] == b"\0":  # UTF-16 without its mark
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _separator(header: str) -> str:
    bare = _QUOTED.sub("", header)
    return max(_SEPARATORS, key=bare.count)
