"""Figures from papers: shown apart, with source and protocol, and never ranked. Nothing here was measured by us.

`leaderboard/reported.toml` holds one table `[[source]]` per publication.
"""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer
from rich import box
from rich.markup import escape
from rich.table import Table

from medfsad_bench.board.terminal import LEAST
from medfsad_bench.display import markdown_table, markdown_text
from medfsad_bench.errors import ResultsError

TITLE = "Reported elsewhere"
WARNING = (
    "Figures from papers, in per cent, of other images, splits and protocols than ours. None was measured here, so "
    "none is ranked, and none may be compared with a row above."
)
UNSTATED = "not stated"


class Figure(BaseModel):
    """An image AUROC as it was printed.

    Attributes:
        method: As the source calls it.
        images: Of which the figure is: a set of ours by its name, or a set in the source's words.
        shots: K; None where the source doesn't say.
        auroc: In per cent; a decimal, which keeps the digits of the source (82.70, not 82.7).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    images: str
    shots: int | None = Field(default=None, ge=1)
    auroc: Decimal = Field(ge=0, le=100)

    @field_serializer("auroc", when_used="json")
    def _as_number(self, auroc: Decimal) -> float:
        return float(auroc)


class Source(BaseModel):
    """A publication.

    Attributes:
        title: Who, what, where.
        url: Where it is read.
        read: What was read of it: the paper itself, or somebody's notes.
        protocol: How the figures came about.
        knowledge: What the methods are given beyond K normal images.
        figures: All of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    url: str
    read: str
    protocol: str
    knowledge: str
    figures: tuple[Figure, ...]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: tuple[Source, ...]


def reported_sources(path: Path) -> list[Source]:
    """All sources; none where there is no file.

    Raises:
        ResultsError: If the file is damaged or says something unknown.
    """
    if not path.is_file():
        return []
    try:
        return list(_File.model_validate(tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)).source)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
    except (OSError, ValueError) as error:
        faults = str(error)
    raise ResultsError(f"{path}: {faults}. Expected tables [[source]] of title, url, read, protocol, … and figures.")


def grid_of(source: Source) -> tuple[list[str], list[list[str]]]:
    """A source's figures as printed, as a table, its columns and its lines: methods and images by K."""
    shots = sorted({figure.shots for figure in source.figures}, key=lambda k: k or 0)
    names = list(dict.fromkeys((figure.method, figure.images) for figure in source.figures))
    figures = {(figure.method, figure.images, figure.shots): str(figure.auroc) for figure in source.figures}
    columns = ["method", "images", *(f"K {UNSTATED}" if k is None else f"K = {k}" for k in shots)]
    return columns, [[*name, *(figures.get((*name, k), "–") for k in shots)] for name in names]


def as_markdown(sources: list[Source]) -> str:
    """A chapter of the board's page; empty without sources."""
    if not sources:
        return ""
    parts = [f"## {TITLE}", "", WARNING, ""]
    for source in sources:
        parts += [f"### {markdown_text(source.title)}", ""]
        facts = {
            "Source": f"<{source.url}>",
            "Read": source.read,
            "Protocol": source.protocol,
            "Given": source.knowledge,
        }
        parts += [f"- {name}: {text}" for name, text in facts.items()]
        parts += ["", markdown_table(*grid_of(source))]
    return "\n".join(parts)


def as_tables(sources: list[Source], *, width: int = 80) -> list[Table]:
    """For a terminal of that many characters."""
    tables = []
    for source in sources:
        columns, rows = grid_of(source)
        caption = f"{TITLE.lower()}, per cent; never ranked. {source.protocol}"
        table = Table(
            *columns,
            title=escape(source.title),
            caption=escape(caption),
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            min_width=min(width, LEAST),
        )
        for row in rows:
            table.add_row(*map(escape, row))
        tables.append(table)
    return tables


def as_json(sources: list[Source]) -> list[dict[str, Any]]:
    """As they stand in the file, an AUROC as a number."""
    return [source.model_dump(mode="json") for source in sources]
