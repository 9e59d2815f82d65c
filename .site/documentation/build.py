"""The whole site: the board of rows, and the documentation beside it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from documentation.contents import Generated, Page, read_contents
from documentation.errors import SiteError
from documentation.examples import Workspace, key_of
from documentation.markdown import Renderer, examples_of, read_documents
from documentation.reading import Reader, faults_of
from documentation.reference import with_commands, with_interface
from medfsad_bench.board.significance import Evidence
from medfsad_bench.board.site.build import write_site
from medfsad_bench.board.site.environment import digest, environment
from medfsad_bench.files import write_text
from medfsad_bench.results.row import Row

FOLDER = "docs"  # of the documentation's pages within the site
_TEMPLATES = Path(__file__).parent.parent / "templates"
_GENERATORS: dict[Generated, Callable[[str], str]] = {"": str, "commands": with_commands, "interface": with_interface}


def build_site(
    root: Path,
    out: Path,
    workspace: Workspace,
    *,
    rows: Sequence[Row] = (),
    evidence: Evidence | None = None,
    **board: Any,
) -> int:
    """Write board and documentation as one site, whole or not at all.

    Args:
        root: Of the repository.
        out: Folder to write; new, empty, or left by an earlier call.
        workspace: Where examples run.
        rows: Of the board; without any its page says so.
        evidence: Scores of the rows by run id.
        board: Further arguments of `write_site`, such as `reproduced`.

    Returns:
        How many pages there are.

    Raises:
        SiteError: If a link, an anchor or a picture's text is missing, or an example fails.
    """

    def documentation(site: Path) -> int:
        return _write_pages(root, site, workspace, rows)

    return write_site(rows, evidence or {}, out, documentation=documentation, **board)


def _write_pages(root: Path, site: Path, workspace: Workspace, rows: Sequence[Row]) -> int:
    """Write the documentation beside a board, then look at all pages of both."""
    contents = read_contents(root)
    texts = [(page, _text_of(root, page)) for page in contents]
    documents = read_documents(texts)
    examples = [text for document in documents for text in examples_of(document)]
    key = key_of(root, examples)
    workspace.recall(key)
    renderer = Renderer(root, documents, workspace)
    templates = _environment()
    shared: dict[str, Any] = {
        "documented": True,
        "rows": rows,
        "up": "../",
        "chapters": _chapters(contents),
        "more_style": _asset("documentation.css"),
    }
    for document in documents:
        html = templates.get_template("page.html.jinja").render(
            **shared,
            page=document.page,
            headings=document.headings,
            body=Markup(renderer.html(document)),  # noqa: S704
        )
        write_text(site / FOLDER / f"{document.page.name}.html", html)
    if key_of(root, examples) == key:  # else somebody has changed the program meanwhile
        workspace.keep(key)
    for file in renderer.files:
        (site / FOLDER / "files" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, site / FOLDER / "files" / file)
    script = _asset("search.js")
    search = templates.get_template("search.html.jinja")
    passages = [passage for path in _searched(site, contents) for passage in _passages(path, site / FOLDER)]
    html = search.render(**shared, page=None, passages=passages, script=script, digest=digest(script))
    write_text(site / FOLDER / "search.html", html)
    if faults := faults_of(site):
        raise SiteError(f"{len(faults)} things are broken, so that no site was written. {'; '.join(faults[:20])}.")
    return len(documents) + 1


def _text_of(root: Path, page: Page) -> str:
    return _GENERATORS[page.generated]((root / page.file).read_text("utf-8"))


def _chapters(contents: Sequence[Page]) -> dict[str, list[Page]]:
    return {
        chapter: [page for page in contents if page.chapter == chapter]
        for chapter in dict.fromkeys(page.chapter for page in contents if page.chapter)
    }


def _searched(site: Path, contents: Sequence[Page]) -> list[Path]:
    """The documentation in its order, then methods and data sets of the board."""
    documented = [site / FOLDER / f"{page.name}.html" for page in contents]
    return [*documented, *sorted(site.glob("methods/*.html")), *sorted(site.glob("datasets/*.html"))]


def _passages(path: Path, beside: Path) -> list[dict[str, str]]:
    """Of a page: address, title, heading and text of each passage."""
    address = path.relative_to(beside.parent).as_posix()
    address = address.removeprefix(f"{FOLDER}/") if address.startswith(f"{FOLDER}/") else f"../{address}"
    _, title, *others = Reader(path).passages
    return [
        {
            "page": title.heading.strip(),
            "heading": passage.heading.strip() if passage is not title else "",
            "address": f"{address}#{passage.anchor}" if passage.anchor else address,
            "text": " ".join(passage.text.split()),
        }
        for passage in (title, *others)
    ]


def _environment() -> Environment:
    """The board's, with the templates of the documentation before its own."""
    board = environment()
    loaders = [FileSystemLoader(_TEMPLATES), board.loader]
    return board.overlay(loader=ChoiceLoader([loader for loader in loaders if loader is not None]))


def _asset(name: str) -> Markup:
    """Style sheet or script, as it stands in a page."""
    return Markup((_TEMPLATES / name).read_text("utf-8"))  # noqa: S704 - our own
