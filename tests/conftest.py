"""Fixtures that several test files need."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
