"""The documentation: what is broken fails its build, links and examples are what they say, nothing is missing."""

import html
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from test_documents import DOCUMENTS

import medfsad_bench
from documentation.build import build_site
from documentation.contents import BOARD, read_contents
from documentation.errors import SiteError
from documentation.examples import Workspace, key_of
from documentation.reading import Reader
from documentation.reference import commands, with_commands, with_interface
from medfsad_bench.demo import write_demo_downloads

ROOT = Path(__file__).resolve().parent.parent
README = "# Toy\n\nRead on: [words](#words), [more](more.md#deeper-things).\n\n## Words\n\n### A word\n\nIts meaning.\n"
MORE = (
    "# More\n\n## Deeper things\n\n![a dot](dot.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    "\n## Größe\n\n[This](#größe).\n\n## Deeper things\n\nAgain.\n"
)
CONTENTS = """
[[chapter]]
title = "Begin"
pages = [
  { name = "start", title = "Start here", file = "README.md" },
  { name = "words", title = "Glossary", file = "README.md", section = "Words" },
  { name = "more", title = "More", file = "more.md" },
]
"""
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f00010101005a4d6ff100"
    "00000049454e44ae426082"
)

Repository = Callable[..., Path]


@pytest.fixture
def built(tmp_path: Path) -> Repository:
    """Builds the site of a small repository, some files of which may be others."""

    def build(**texts: str) -> Path:
        root = tmp_path / "repository"
        files = {"README.md": README, "more.md": MORE, ".site/contents.toml": CONTENTS}
        for name, text in (files | {key.replace("__", "."): text for key, text in texts.items()}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, "utf-8")
        (root / "dot.png").write_bytes(DOT)
        (tmp_path / "examples").mkdir(exist_ok=True)
        build_site(root, tmp_path / "site", Workspace(tmp_path / "examples"))
        return tmp_path / "site"

    return build


def test_links_lead_to_the_page_that_shows_the_heading(built: Repository) -> None:
    docs = built() / "docs"
    start = (docs / "start.html").read_text("utf-8")
    assert 'href="words.html"' in start, "a section that is a page of its own"
    assert 'href="more.html#deeper-things"' in start
    assert "Its meaning" not in start
    words = (docs / "words.html").read_text("utf-8")
    assert "<h1>Glossary</h1>" in words
    assert '<h2 id="a-word">A word</h2>' in words
    assert [name for name in Reader(docs / "more.html").ids if name[0] in "dg"] == [
        *("deeper-things", "größe", "deeper-things-1")
    ]


def test_a_file_that_is_no_page_comes_with_the_site(built: Repository) -> None:
    docs = built(**{"more__md": f"{MORE}\n[Try it](notebook.ipynb).\n", "notebook.ipynb": "{}"}) / "docs"
    assert 'href="files/notebook.ipynb"' in (docs / "more.html").read_text("utf-8")
    assert (docs / "files" / "notebook.ipynb").read_text("utf-8") == "{}"


def test_a_table_scrolls_by_itself_and_a_picture_is_in_the_page(built: Repository) -> None:
    more = (built() / "docs" / "more.html").read_text("utf-8")
    assert 'tabindex="0" role="region" aria-label="Table 1: Deeper things"' in more
    assert '<th scope="col">a</th>' in more
    assert re.search(r'<img src="data:image/png;base64,[\w+/=]+" alt="a dot"', more)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gone](gone.md)", r"more\.md: the link 'gone\.md' leads to gone\.md, which no page shows"),
        ("[gone](README.md#gone)", r"the link 'README\.md#gone' leads to #gone of README\.md"),
        ("[gone](#gone)", r"the link '#gone' leads to #gone of more\.md"),
        ("![](dot.png)", r"docs/more\.html: the picture 'data:image/png.*' has no text"),
        ("![a dot](gone.png)", r"the picture 'gone\.png' doesn't exist"),
        ("<b>bold</b>", "HTML in Markdown isn't taken: '<b>'"),
        ("<script>alert(1)</script>", "HTML in Markdown isn't taken"),
        ("```sh run\nls\n```", "The example 'ls' isn't a medfsad command"),
        ("```sh run\nmedfsad datasets gone\n```", "ended with exit code 2: Error"),
        ("```python run\n1 / 0\n```", "An example raised ZeroDivisionError"),
    ],
)
def test_what_is_broken_fails_the_build_and_leaves_no_site(
    built: Repository, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SiteError, match=message):
        built(more__md=f"{MORE}\n{text}\n")
    assert not (tmp_path / "site").exists()


def test_a_broken_page_of_the_board_fails_the_build_too(built: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.write_text

    def spoiled(path: Path, text: str, *rest: str, **options: str) -> int:
        return original(path, text.replace("docs/start.html", "docs/gone.html"), *rest, **options)

    monkeypatch.setattr(Path, "write_text", spoiled)
    with pytest.raises(SiteError, match=r"index\.html: the link 'docs/gone\.html' leads to no file"):
        built()


def test_a_markdown_file_that_no_page_shows_fails_the_build(built: Repository) -> None:
    with pytest.raises(SiteError, match=r"baselines/NEW\.md: not in \.site/contents\.toml"):
        built(**{"baselines/NEW__md": "# New\n"})


def test_a_section_that_is_not_there_fails_the_build(built: Repository) -> None:
    with pytest.raises(SiteError, match="has no section 'Gone'"):
        built(**{".site/contents.toml": CONTENTS.replace('"Words"', '"Gone"')})


def test_an_example_runs_once_and_shows_what_it_printed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, {"medfsad demo": "printed before\n"})
    assert workspace.shell("medfsad demo\n") == "printed before\n"
    assert "licence: research use on request" in workspace.shell("medfsad datasets \\\n    lag  # one set\n")
    (tmp_path / "a.h5").write_text("", "utf-8")
    with pytest.raises(SiteError, match=r"exit code 2: (?s:.*)a\.h5"):
        workspace.shell("medfsad inspect *.h5")
    assert workspace.python("number = 3") == ""
    assert workspace.python("print(number + 1)") == "4\n"


def test_what_examples_printed_is_kept_until_anything_that_they_depend_on_changes(tmp_path: Path) -> None:
    (tmp_path / "medfsad_bench").mkdir()
    (code := tmp_path / "medfsad_bench" / "a.py").write_text("1", "utf-8")
    key = key_of(tmp_path, ["sh run\nmedfsad demo\n"])
    assert key_of(tmp_path, ["sh run\nmedfsad doctor\n"]) != key
    first = Workspace(tmp_path, kept=tmp_path / "kept.json")
    assert first.python("print(2)") == "2\n"
    first.keep(key)
    again, changed = (Workspace(tmp_path, kept=tmp_path / "kept.json") for _ in range(2))
    again.recall(key)
    assert again.printed == {"print(2)": "2\n"}
    code.write_text("2", "utf-8")
    changed.recall(key_of(tmp_path, ["sh run\nmedfsad demo\n"]))
    assert changed.printed == {}


def test_every_command_has_a_chapter_with_an_example_and_its_options() -> None:
    text = (ROOT / ".site" / "commands.md").read_text("utf-8")
    shown = with_commands(text)
    chapters = dict(zip(*[iter(re.split(r"(?m)^## (\S+)\n", shown)[1:])] * 2, strict=True))
    for name, command in commands().items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in chapters[name], f"{name} {parameter.opts[0]}"
    with pytest.raises(SiteError, match="Commands and chapters differ: nonsense"):
        with_commands(f"{text}\n## nonsense\n\n```sh run\nmedfsad nonsense\n```\n")
    with pytest.raises(SiteError, match="'verify' has no example"):
        with_commands(text.replace("medfsad verify", "medfsad inspect"))


def test_the_interface_shows_every_public_name_with_its_docstring() -> None:
    shown = with_interface("# Python interface\n")
    for name in medfsad_bench.__all__:
        if not name.startswith("_"):
            assert f"### {name}\n" in shown
            first = (getattr(medfsad_bench, name).__doc__ or "").strip().splitlines()[0]
            assert first in shown, name
    assert "- `folder`: Of downloads, or of own images in `normal/` and `anomalous/`." in shown
    assert "**Returns**\n\nA report per set; its `path` is that of the prepared file.\n\n**Raises**\n\n- `Down" in shown
    assert "```python\n>>> knowledge_of(TEXT, ABNORMAL_SUPPORTS)\n" in shown
    assert "### MedfsadError" in shown
    assert " at 0x" not in shown, "the same page every time"


def test_the_contents_list_every_document_of_the_repository() -> None:
    assert {ROOT / page.file for page in read_contents(ROOT)} == {
        path for path in DOCUMENTS if "tests" not in path.parts and path != ROOT / BOARD
    }


@pytest.mark.long
@pytest.mark.timeout(1200)  # every command of the program, some of which train
def test_every_example_of_the_documentation_runs(tmp_path: Path) -> None:
    write_demo_downloads(tmp_path / "examples" / "medfsad-demo" / "raw", scale=0.75)
    workspace = Workspace(tmp_path / "examples", {"medfsad demo": "a demo is a test of its own\n"})
    build_site(ROOT, tmp_path / "site", workspace)
    page = html.unescape((tmp_path / "site" / "docs" / "commands.html").read_text("utf-8"))
    assert "lag-1.1.0-smaller-64px.h5: sound" in page
    assert "mean_distance: keeps the contract" in page
    page = html.unescape((tmp_path / "site" / "docs" / "own-images.html").read_text("utf-8"))
    assert "Research use, not a medical device." in page
    assert "scanner_2" in page


def test_every_command_in_a_document_is_one_that_the_program_takes() -> None:
    """Blocks of code alone: names, options and values, without running any."""
    registered, wrong, seen = commands(), [], 0
    for path in DOCUMENTS:
        blocks = re.findall(r"(?ms)^```\w*[ \w]*\n(.*?)^```|^((?: {4}[^\n]*\n)+)", path.read_text("utf-8"))
        for line in "\n".join("".join(block) for block in blocks).replace("\\\n", " ").splitlines():
            program, _, rest = line.strip().partition(" ")
            if program != "medfsad" or re.match(r"(COMMAND|-|\S+ \|)", rest) or "…" in rest or " " not in rest:
                continue
            seen += 1
            name, *words = shlex.split(re.sub(r"<.*?>", "1", rest), comments=True)
            try:
                registered[name].make_context(name, words)
            except Exception as error:  # noqa: BLE001 - of typer's own classes
                wrong.append(f"{path.relative_to(ROOT)}: {line.strip()}: {error or type(error).__name__}")
    assert wrong == []
    assert seen > 60
