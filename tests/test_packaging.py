"""What somebody installs: the wheel from the source package, by itself, and the image."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medfsad_bench.board.accepted import rows_in_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "leaderboard" / "results"
DOCKERFILE = ROOT / ".ci" / "container" / "Dockerfile"
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package of a checkout that has accepted rows and scores, and the wheel that is built of it."""
    checkout = tmp_path_factory.mktemp("checkout") / "medfsad"
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", "build", "dist", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    kept = checkout / "leaderboard" / "results"
    (kept / "runs" / "some-run").mkdir(parents=True)
    (kept / "runs" / "some-run" / "scores.parquet").touch()
    out = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def installed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command of a bare environment: it sees the wheel and third parties, and neither checkout nor network."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    binaries = folder / "venv" / "bin"
    site = next((folder / "venv").glob("lib/python3*/site-packages"))
    (site / "third_parties.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install", "--quiet", "--no-deps"]
    wheel = next(packages.glob("*.whl"))
    done = subprocess.run(
        [*pip, "--ignore-installed", "--no-index", str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "work").mkdir()
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "80", "MPLCONFIGDIR": str(folder)}
    environment = {"HOME": str(folder), "PATH": f"{binaries}:/usr/bin:/bin", **quiet}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(binaries / "medfsad"), *words]
        return subprocess.run(
            command, cwd=folder / "work", env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.slow
def test_the_wheel_has_rows_and_no_scores_and_the_source_package_both(packages: Path) -> None:
    in_wheel = zipfile.ZipFile(next(packages.glob("*.whl"))).namelist()
    of_board = {name.partition("_data/leaderboard/")[2] for name in in_wheel if "_data/leaderboard/" in name}
    kept = [path.relative_to(RESULTS) for path in RESULTS.rglob("*") if path.is_file()]
    rows = {f"results/{path.as_posix()}" for path in kept if path.parts[0] != "runs"}
    assert of_board == {"README.md", "THREATS.md", "LEADERBOARD.md", "reported.toml", *rows}
    pages = {name for name in in_wheel if "/board/site/pages/" in name}
    assert len(pages) == len(list((ROOT / "medfsad_bench" / "board" / "site" / "pages").iterdir()))
    with tarfile.open(next(packages.glob("*.tar.gz"))) as package:
        in_source = {name.partition("/")[2] for name in package.getnames()}
    assert "leaderboard/results/runs/some-run/scores.parquet" in in_source
    assert {"data_manifests/rsna.toml", "Makefile", ".ci/constraints.txt", "tests/conftest.py"} <= in_source


@pytest.mark.slow
def test_the_installed_command_answers_without_checkout_or_network(installed: Command) -> None:
    version = installed("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout == f"medfsad {version_of_project()}\n"
    methods = installed("methods", "--json")
    assert methods.returncode == 0, methods.stderr
    assert {"d24fad", "patchcore", "chance"} <= set(json.loads(methods.stdout))
    board = installed("leaderboard", "--format", "json")
    assert board.returncode == 0, board.stderr
    accepted = {row.run_id for row in rows_in_results(RESULTS)}
    assert {row["run_id"] for row in json.loads(board.stdout)["rows"]} == accepted != set()
    assert len(json.loads(installed("datasets", "--json").stdout)) == len(
        list((ROOT / "data_manifests").glob("*.toml"))
    )


@pytest.mark.long
@pytest.mark.timeout(3600)  # d24fad trains on six sets
def test_the_installed_demo_goes_the_whole_way_to_a_site(installed: Command) -> None:
    demo = installed("demo", "--out", "demo")
    assert demo.returncode == 0, demo.stderr
    assert "patchcore" in demo.stdout
    site = installed("leaderboard", "--runs", "demo/runs", "--format", "html", "--out", "site")
    assert site.returncode == 0, site.stderr
    assert "open site/index.html" in site.stdout


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
def test_the_image_is_described_without_a_finding_of_hadolint() -> None:
    command = [str(HADOLINT), "--failure-threshold", "info", str(DOCKERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_of_the_base_and_asks_nobody_for_weights() -> None:
    lines = DOCKERFILE.read_text("utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]
    assert any("HF_HUB_OFFLINE=1" in line for line in lines)
    copied = Path(f"{DOCKERFILE}.dockerignore").read_text("utf-8").splitlines()
    missing = [name for line in copied if (name := line.removeprefix("!")) != line and not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_image_is_built_and_runs_without_a_network() -> None:
    builder = next((name for name in ("docker", "buildah") if shutil.which(name) and works(name)), None)
    if builder is None:
        pytest.skip("needs docker with its daemon, or buildah, and the network")
    tag = "medfsad-test"
    build = [builder, "build", "-f", str(DOCKERFILE), "-t", tag, str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    if builder == "docker":
        run = ["docker", "run", "--rm", "--network", "none", tag, "--version"]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.startswith("medfsad ")


def works(builder: str) -> bool:
    return subprocess.run([builder, "info"], capture_output=True, check=False).returncode == 0


def version_of_project() -> str:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    return next(line.split('"')[1] for line in project.splitlines() if line.startswith("version = "))
