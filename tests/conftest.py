"""Fixtures that several test files need."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images, label tables and oracles; the test is skipped where it is missing."""
    folder = Path(os.environ.get("MEDFSAD_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the shared folder of real images (MEDFSAD_SHARED), not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def own_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of a user's own, `ward_a` with masks and `ward_b` without: 24 normal and 10 anomalous images each."""
    root = tmp_path_factory.mktemp("own")
    write_own_folder(root / "ward_a", seed=1, masks=True)
    write_own_folder(root / "ward_b", seed=2, masks=False)
    return root


@pytest.fixture(scope="session")
def own_data(own_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two folders prepared at 64 px."""
    from medfsad_bench.curation.stage import PrepareOptions, prepare

    out = tmp_path_factory.mktemp("data")
    prepare(own_source, PrepareOptions(out, size_px=64), watcher=Silent())
    return out


class Silent:
    """Takes note of no progress."""

    def start(self, label: str, total: int) -> None:
        """A stage begins."""

    def advance(self, steps: int) -> None:
        """Some steps are done."""


def write_own_folder(folder: Path, *, seed: int, masks: bool, normal: int = 24, anomalous: int = 10) -> None:
    """Blurred noise as tissue, a bright disc as lesion: `normal/`, `anomalous/` and, if asked for, `masks/`."""
    for name in ("normal", "anomalous", *(["masks"] if masks else [])):
        (folder / name).mkdir(parents=True)
    for number in range(normal + anomalous):
        rng = np.random.default_rng([seed, number])
        coarse = Image.fromarray(rng.integers(40, 180, (9, 8), np.uint8))
        pixels = np.array(coarse.resize((80, 96), Image.Resampling.BICUBIC))
        label = "normal" if number < normal else "anomalous"
        if label == "anomalous":
            y, x = np.ogrid[:96, :80]
            lesion = (y - rng.integers(30, 66)) ** 2 + (x - rng.integers(25, 55)) ** 2 < 81
            pixels[lesion] = 250
            if masks:
                Image.fromarray((lesion * 255).astype(np.uint8)).save(folder / "masks" / f"case{number:02d}.png")
        Image.fromarray(pixels).save(folder / label / f"case{number:02d}.png")
