"""What the program says of itself and of the machine."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture

from medfsad_bench.cli import about

ROOT = Path(__file__).resolve().parent.parent


def test_version_and_short_help_answer(medfsad: Medfsad) -> None:  # noqa: F811
    version = importlib.metadata.version("medfsad")
    assert medfsad("--version") == (0, f"medfsad {version}\n", "")
    for words in (("-h",), ("leaderboard", "-h")):
        code, out, _ = medfsad(*words)
        assert code == 0
        assert "Usage" in out


def test_commands_and_options_complete_in_a_shell() -> None:
    """As bash asks for it: the words so far, and which of them is being typed."""
    words = [sys.executable, "-c", "import sys; sys.argv[0] = 'medfsad'; from medfsad_bench.cli import main; main()"]

    def completed(typed: str) -> list[str]:
        asked = {"_MEDFSAD_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        done = subprocess.run(words, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("medfsad leaderb") == ["leaderboard"]
    assert completed("medfsad leaderboard --form") == ["--format"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_an_error_fits_the_terminal_from_its_first_line_on(width: int) -> None:
    """In a process of its own: a console asks for its width once."""
    words = [sys.executable, "-c", "from medfsad_bench.cli import main; main()", "run", "patchcoer"]
    done = subprocess.run(words, env={**os.environ, "COLUMNS": str(width)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert width - 25 < max(map(len, done.stderr.splitlines())) <= width


def test_the_citation_names_the_version_and_licence_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (version,) = (line.split('"')[1] for line in project.splitlines() if line.startswith("version = "))
    assert f"version: {version}\n" in citation
    assert "license: Apache-2.0\n" in citation


def test_doctor_has_a_hint_for_what_is_missing(
    medfsad: Medfsad,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(about, "_installed", lambda name: name != "pylibjpeg-rle")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    code, out, _ = medfsad("doctor")
    assert code == 0
    told = " ".join(out.split())
    for hint in ("DICOM are missing (pylibjpeg-rle)", "Little disk is left", "No prepared set in medfsad-data"):
        assert hint in told
    assert "embedded weights:" not in told
    facts = json.loads(medfsad("doctor", "--json")[1])
    assert any("medfsad demo" in hint for hint in facts["hints"])


def test_doctor_has_no_hint_about_what_is_there(
    medfsad: Medfsad,  # noqa: F811
    own_data: Path,
) -> None:
    hints = json.loads(medfsad("doctor", "--data", own_data, "--json")[1])["hints"]
    assert not [hint for hint in hints if "prepared" in hint or "DICOM" in hint]
