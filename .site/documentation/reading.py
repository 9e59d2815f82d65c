"""Reads finished pages as a browser does: what is broken on them, and which passages can be searched for."""

from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

_HEADINGS = ("h1", "h2", "h3", "h4")
_SILENT = {"script", "style", "nav", "header", "footer", "svg", "noscript", "title"}


@dataclass(slots=True)
class Passage:
    """What stands between two headings.

    Attributes:
        anchor: Of the heading above; empty at a page's top and where a heading has none.
        heading: Its text.
        text: What follows it.
    """

    anchor: str
    heading: str
    text: str = ""


class Reader(HTMLParser):
    """A page that was read.

    Args:
        page: Its file.
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.silent_pictures: list[str] = []
        self.passages = [Passage("", "")]
        self._silent: list[str] = []
        self._in_heading = False
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links, and pictures that say nothing; begin a passage at a heading."""
        attributes = {name: value or "" for name, value in attrs}
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.targets += [attributes[name] for name in ("href", "src", "action") if name in attributes]
        hidden = attributes.get("aria-hidden") == "true"
        if tag == "img" and not hidden and not attributes.get("alt", "").strip():
            self.silent_pictures.append(attributes.get("src", "")[:60])
        if tag == "svg" and not hidden and not {"aria-label", "aria-labelledby"} & attributes.keys():
            self.silent_pictures.append("svg")
        if tag in _SILENT:
            self._silent.append(tag)
        if tag in _HEADINGS and not self._silent:
            self._in_heading = True
            self.passages.append(Passage(attributes.get("id", ""), ""))

    def handle_endtag(self, tag: str) -> None:
        """End a heading, or what isn't read."""
        if self._silent and tag == self._silent[-1]:
            self._silent.pop()
        if tag in _HEADINGS:
            self._in_heading = False

    def handle_data(self, data: str) -> None:
        """Add to the passage."""
        if self._silent:
            return
        if self._in_heading:
            self.passages[-1].heading += data
        else:
            self.passages[-1].text += data


def faults_of(site: Path) -> list[str]:
    """What is broken in a folder of pages: each with its page, in words.

    Links have to lead to a file of the folder and, where they name one, to an anchor in it; the board's own addresses
    (`#shots=4&…`) are its script's affair. Pictures need a text, or to be hidden from screen readers.
    """
    pages = {path.resolve(): Reader(path) for path in sorted(site.rglob("*.html"))}
    return [f"{page.relative_to(site.resolve())}: {fault}" for page in pages for fault in _faults(page, pages)]


def _faults(page: Path, pages: dict[Path, Reader]) -> Iterator[str]:
    reader = pages[page]
    for target in dict.fromkeys(reader.targets):
        if target.startswith(("http://", "https://", "mailto:", "data:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / unquote(name)).resolve() if name else page
        if not file.is_file():
            yield f"the link {target!r} leads to no file"
        elif anchor and "=" not in anchor and file in pages and unquote(anchor) not in pages[file].ids:
            yield f"the link {target!r} leads to no anchor"
    for name in sorted({name for name in reader.ids if reader.ids.count(name) > 1}):
        yield f"two elements bear the anchor {name!r}"
    for picture in reader.silent_pictures:
        yield f"the picture {picture!r} has no text"
