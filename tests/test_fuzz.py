"""Readers on damaged files: a good image or a refusal in one line, never anything else.

A small part of what `tests/fuzz/fuzz_readers.py` does in processes of their own.
"""

from functools import cache

import numpy as np
import pytest
from fuzz.fuzz_readers import mutated, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import read_patches, read_picture, read_volume


@cache
def files() -> list[tuple[str, bytes]]:
    return [(name, content) for name, content in seeds(None) if len(content) < 60_000]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    name, content = files()[int(rng.integers(len(files())))]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(mutated(content, rng, other=files()[int(rng.integers(len(files())))][1]))
    refusal = f"{name}:"
    try:
        if name.endswith(".nii"):
            assert np.isfinite(read_volume(path).array).all()
        elif ".slide." in name:
            assert all(patch.pixels.dtype == np.uint8 for patch in read_patches(path, [(0, 0, 64)]))
        else:
            assert read_picture(path).pixels.dtype == np.uint8
    except DownloadError as error:
        refusal = str(error)
    assert refusal.startswith(name)
    assert "\n" not in refusal
