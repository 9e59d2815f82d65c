"""What the templates are rendered with: escaping, filters, and what every page may name."""

import base64
import hashlib
import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from medfsad_bench.board.labels import verdict
from medfsad_bench.board.site.payload import CONFOUNDED
from medfsad_bench.display import html_templates, visible
from medfsad_bench.metrics.metric import title_of
from medfsad_bench.results.row import Row
from medfsad_bench.store.composition import SMALL

_LANDSCAPE = Markup("@page { size: landscape; }")  # for pages of wide tables on paper


@cache
def environment() -> Environment:
    """The templates of the site."""
    templates = html_templates("medfsad_bench.board.site", "pages")
    templates.filters |= {"file": method_file, "set_file": set_file, "title": title_of}
    templates.filters |= {"json_text": _json_text, "log10": math.log10, "verdict": verdict}
    templates.filters |= {"breakable": _breakable, "thousandths": _thousandths}
    templates.globals |= {"SMALL": SMALL, "CONFOUNDED": CONFOUNDED, "style": asset("site.css"), "landscape": _LANDSCAPE}
    return templates


def asset(name: str) -> Markup:
    """Style sheet or script, as it stands in a page."""
    return Markup((files("medfsad_bench.board.site") / "pages" / name).read_text("utf-8"))  # noqa: S704 - our own


def digest(script: str) -> str:
    """What a page's security policy names the one script by that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def method_file(method: str) -> str:
    """Name of a method's page."""
    return method.replace(":", "-")


def set_file(row: Row) -> str:
    """Name of a data set's page: a set of one's own may be called as a benchmark's set is."""
    return f"own-{row.target}" if row.benchmark == "own" else row.target


def _thousandths(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _breakable(name: str) -> Markup:
    """A method's or set's name that a narrow column may break after an underscore, and nowhere else."""
    return escape(visible(name)).replace("_", Markup("_<wbr>"))


def _json_text(content: Any) -> Markup:
    """JSON inside a `<script>`, where nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704
