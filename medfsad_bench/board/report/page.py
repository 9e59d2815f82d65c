"""Pages of reports: templates in the look of the board's site, with everything inside."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from medfsad_bench.board.site.environment import asset
from medfsad_bench.display import html_templates
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_advice, write_text
from medfsad_bench.metrics.metric import title_of


def rendered(template: str, **content: Any) -> str:
    """A page as HTML that asks for nothing else."""
    return _environment().get_template(template).render(**content)


def write_page(path: Path, html: str) -> None:
    """Write a page whole or not at all.

    Raises:
        ResultsError: If it can't be written there.
    """
    if path.is_dir():
        raise ResultsError(f"--out {path} is a folder. Expected the name of an HTML file.")
    try:
        write_text(path, html)
    except OSError as error:
        raise ResultsError(
            f"--out {path}: can't be written ({error.strerror or error}). {write_advice(error)}"
        ) from error


@cache
def _environment() -> Environment:
    environment = html_templates("medfsad_bench.board.report", "pages")
    own_style = (files("medfsad_bench.board.report") / "pages" / "report.css").read_text("utf-8")
    environment.globals |= {"style": asset("site.css") + Markup(own_style)}  # noqa: S704 - our own file
    environment.filters |= {"title": title_of, "p": _p}
    return environment


def _p(p: float | None) -> str:
    return "–" if p is None else "below 0.001" if p < 0.001 else f"{p:.3f}"
