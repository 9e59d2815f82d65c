"""From the Markdown of a page to its HTML: anchors as a repository's host gives them, links between pages, examples."""

import base64
import mimetypes
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import escape

from documentation.contents import BOARD, Page
from documentation.errors import SiteError
from documentation.examples import Workspace

_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(slots=True)
class Document:
    """A page whose Markdown was read.

    Attributes:
        page: Which one.
        tokens: Its blocks, without the heading that is its title.
        headings: Anchor and text of its chapters.
        anchors: Of all its headings.
    """

    page: Page
    tokens: list[Token]
    headings: list[tuple[str, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


def read_documents(texts: Sequence[tuple[Page, str]]) -> list[Document]:
    """Read the Markdown of pages: choose their sections, and give their headings anchors.

    Args:
        texts: Pages with the Markdown of their files, with what is generated for them.

    Raises:
        SiteError: If a file has no such section.
    """
    return [_document(page, text, [other for other, _ in texts]) for page, text in texts]


def examples_of(document: Document) -> list[str]:
    """Texts of the examples that run for a page."""
    return [f"{token.info}\n{token.content}" for token in document.tokens if _is_example(token)]


class Renderer:
    """Renders pages that lead to each other.

    Args:
        root: Of the repository.
        documents: All pages.
        workspace: Runs their examples.

    Attributes:
        files: What pages link to that is no page, as a notebook, from the root of the repository; it belongs into the
            folder `files` beside the pages.
    """

    def __init__(self, root: Path, documents: Sequence[Document], workspace: Workspace) -> None:
        self.root = root
        self.workspace = workspace
        self.files: set[str] = set()
        self.homes: dict[tuple[str, str], str] = {}  # which page shows a heading of a file
        for document in sorted(documents, key=lambda each: bool(each.page.section)):  # a page of its own comes last
            page = document.page
            self.homes |= {(page.file, anchor): f"{page.name}.html#{anchor}" for anchor in document.anchors}
            top = (page.file, anchor_of(page.section) if page.section else "")
            self.homes[top] = f"{page.name}.html"

    def html(self, document: Document) -> str:
        """A page's content; its examples run now.

        Raises:
            SiteError: If a link or picture leads nowhere, the Markdown holds HTML, or an example fails.
        """
        try:
            return _MARKDOWN.renderer.render(list(self._blocks(document)), _MARKDOWN.options, {})
        except SiteError as error:
            raise SiteError(f"{document.page.file}: {error}") from error

    def _blocks(self, document: Document) -> Iterator[Token]:
        heading, tables = document.page.title, 0
        for token in document.tokens:
            if token.type == "inline":
                self._resolve(token.children or [], document.page)
                heading = _text(token) if token.meta.get("heading") else heading
            elif _is_example(token):
                yield _html(self._example(token))
                continue
            elif token.type == "html_block":
                _check_comment(token.content)
                continue
            elif token.type == "table_open":
                tables += 1
                label = escape(f"Table {tables}: {heading}")
                yield _html(f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n')
            elif token.type == "th_open":
                token.attrSet("scope", "col")
            yield token
            if token.type == "table_close":
                yield _html("</div>\n")

    def _resolve(self, tokens: Sequence[Token], page: Page) -> None:
        for token in tokens:
            if token.type == "link_open":
                token.attrSet("href", self._address(str(token.attrGet("href")), page))
            elif token.type == "image":
                token.attrSet("src", self._picture(str(token.attrGet("src")), page))
            elif token.type == "html_inline":
                _check_comment(token.content)
                token.content = ""

    def _address(self, target: str, page: Page) -> str:
        if "://" in target or target.startswith("mailto:"):
            return target
        name, _, anchor = unquote(target).partition("#")
        file = self._file(name, page) if name else page.file
        if file == BOARD:
            return "../index.html"
        if (self.root / file).is_dir():
            file = f"{file}/README.md"
        if (self.root / file).is_file() and not file.endswith(".md"):
            self.files.add(file)
            return f"files/{file}"
        if (file, anchor) not in self.homes:
            raise SiteError(
                f"the link {target!r} leads to {f'#{anchor} of ' if anchor else ''}{file}, which no page shows. "
                "Mend the link, or the heading, or list the file in the contents."
            )
        return self.homes[file, anchor]

    def _picture(self, target: str, page: Page) -> str:
        """The picture itself: pages ask for no other file."""
        file = self.root / self._file(target, page)
        kind = mimetypes.guess_type(file.name)[0]
        if not file.is_file() or kind is None or not kind.startswith("image/"):
            raise SiteError(f"the picture {target!r} doesn't exist, or isn't one. Mend the link.")
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"

    def _file(self, target: str, page: Page) -> str:
        return os.path.normpath(Path(page.file).parent / target)

    def _example(self, token: Token) -> str:
        kind = token.info.split()[0]
        printed = self.workspace.python(token.content) if kind == "python" else self.workspace.shell(token.content)
        html = f"<pre><code>{escape(token.content)}</code></pre>\n"
        if printed.strip():
            html += f'<pre class="printed" tabindex="0"><samp>{escape(printed.rstrip())}</samp></pre>\n'
        return html


def anchor_of(heading: str) -> str:
    """What a link to a heading is called: small letters, dashes for spaces, no punctuation.

    >>> anchor_of("Native and anomalib's"), anchor_of("D²4FAD, again")
    ('native-and-anomalibs', 'd²4fad-again')
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def _document(page: Page, text: str, pages: Sequence[Page]) -> Document:
    chapters = _chapters(_MARKDOWN.parse(text))
    if page.section:
        shown = [part[3:] for title, part in chapters if title == page.section]
        if not shown:
            raise SiteError(f"{page.file} has no section {page.section!r}, which the contents list.")
        tokens = shown[0]
    else:
        elsewhere = {other.section: other for other in pages if other.file == page.file and other.section}
        parts = [_pointer(elsewhere[title]) if title in elsewhere else part for title, part in chapters]
        tokens = [token for part in parts for token in part]
        if tokens and tokens[0].tag == "h1":
            tokens = tokens[3:]
    document = Document(page, tokens)
    _name_headings(document, up=1 if page.section else 0)
    return document


def _chapters(tokens: list[Token]) -> list[tuple[str, list[Token]]]:
    """Blocks of a file with the heading of second order above them; above the first one that is the empty text."""
    chapters: list[tuple[str, list[Token]]] = [("", [])]
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            chapters.append((_text(tokens[number + 1]), []))
        chapters[-1][1].append(token)
    return chapters


def _pointer(page: Page) -> list[Token]:
    """What stands on the page of a whole file for a section that is a page of its own."""
    file = Path(page.file).name
    return _MARKDOWN.parse(f"## {page.section}\n\n[{page.title}]({file}#{anchor_of(page.section)}) is a page.\n")


def _name_headings(document: Document, *, up: int) -> None:
    """Give every heading its anchor, and move those of a section up by as many orders as its page has fewer."""
    for number, token in enumerate(document.tokens):
        if token.type not in ("heading_open", "heading_close"):
            continue
        token.tag = f"h{int(token.tag[1]) - up}"
        if token.type == "heading_close":
            continue
        inline = document.tokens[number + 1]
        inline.meta["heading"] = True
        text = anchor = anchor_of(_text(inline))
        twin = 0
        while anchor in document.anchors:
            twin += 1
            anchor = f"{text}-{twin}"
        document.anchors.add(anchor)
        token.attrSet("id", anchor)
        if token.tag == "h2":
            document.headings.append((anchor, _text(inline)))


def _text(inline: Token) -> str:
    """A heading as it reads, without its marks."""
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _is_example(token: Token) -> bool:
    return token.type == "fence" and token.info.endswith(" run")


def _html(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _check_comment(html: str) -> None:
    """Comments are left out; other HTML isn't taken, so that every page has one look and no script."""
    if rest := re.sub(r"(?s)<!--.*?-->", "", html).strip():
        raise SiteError(f"HTML in Markdown isn't taken: {rest[:60]!r}. Write it as Markdown.")
