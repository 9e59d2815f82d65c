"""Examples that run while the site is built, so that what a page shows is what was printed."""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from unittest.mock import patch

from documentation.errors import SiteError
from medfsad_bench import cli
from medfsad_bench.files import write_text

PROGRAM = ("medfsad_bench", "baselines", "methods", "data_manifests", "leaderboard")
WIDTH = 80  # columns of the terminal that examples are printed for


class Workspace:
    """A folder in which the examples of all pages run, one after the other, as one user would type them.

    Args:
        folder: Where files of the examples go; what lies there is at hand.
        printed: What examples have printed, by their text: these aren't run again, and what they make is at hand.
        kept: File in which what all of them print stays until the next time, see `recall`.
    """

    def __init__(self, folder: Path, printed: Mapping[str, str] | None = None, kept: Path | None = None) -> None:
        self.folder = folder
        self.printed = dict(printed or {})
        self.kept = kept
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def shell(self, text: str) -> str:
        """Run the `medfsad` commands of an example; one that ran before isn't run again.

        Args:
            text: A command per line; a line that ends in a backslash goes on in the next. Names with `*` become
                the files that they stand for.

        Returns:
            What the commands print, on both streams, for a terminal of 80 columns.

        Raises:
            SiteError: If a command isn't `medfsad` or ends with another exit code than 0.
        """
        lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
        for line in lines:
            if line not in self.printed:
                self.printed[line] = self._command(line)
        return "".join(self.printed[line] for line in lines)

    def python(self, text: str) -> str:
        """Run Python, unless it ran before; names go on from one example to the next.

        Returns:
            What it prints.

        Raises:
            SiteError: If it raises anything.
        """
        if text in self.printed:
            return self.printed[text]
        with self._inside() as printed:
            try:
                exec(compile(text, "example", "exec"), self.names)  # noqa: S102 - our own pages
            except Exception as error:
                raise SiteError(f"An example raised {type(error).__name__}: {error}. It reads: {text}") from error
        self.printed[text] = printed.getvalue()
        return self.printed[text]

    def recall(self, key: str) -> None:
        """Take what all examples printed last time, if the key is the same: a digest of all that it depends on."""
        if self.kept and self.kept.is_file():
            content = json.loads(self.kept.read_text("utf-8"))
            self.printed |= content["printed"] if content["key"] == key else {}

    def keep(self, key: str) -> None:
        """Keep what all examples have printed."""
        if self.kept:
            write_text(self.kept, json.dumps({"key": key, "printed": self.printed}))

    def _command(self, line: str) -> str:
        program, *words = shlex.split(line, comments=True)
        if program != "medfsad":
            raise SiteError(f"The example {line!r} isn't a medfsad command, and no other one is run.")
        code: Any = 0
        with self._inside() as printed:
            arguments = [name for word in words for name in _names(word)]
            with patch.object(sys, "argv", ["medfsad", *arguments]):
                try:
                    cli.main()
                except SystemExit as stop:
                    code = stop.code
        if code:
            raise SiteError(f"The example {line!r} ended with exit code {code}: {printed.getvalue()[-600:]}")
        return "\n".join(text.rstrip() for text in printed.getvalue().splitlines()) + "\n"

    @contextlib.contextmanager
    def _inside(self) -> Iterator[io.StringIO]:
        """Both streams in one text, the folder as the current one, no colours."""
        printed = io.StringIO()
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}),
        ):
            yield printed


def key_of(root: Path, examples: Sequence[str]) -> str:
    """Digest of all that examples print by: their texts, the program's files, installed packages and the machine.

    Args:
        root: Of the repository.
        examples: Of all pages, in the order in which they run.
    """
    digest = hashlib.sha256()
    packages = sorted(f"{of.name} {of.version}" for of in distributions())
    for text in (*examples, *packages, sys.version, platform.platform()):
        digest.update(f"{len(text)} {text}".encode())
    for path in sorted(path for name in PROGRAM for path in (root / name).rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def _names(word: str) -> list[str]:
    """What a shell makes of a word: the files that fit it, or the word."""
    return sorted(map(str, Path().glob(word))) or [word] if re.search(r"[*?]", word) else [word]
