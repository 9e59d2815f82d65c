"""The prepared file: what is written is read back, and any changed byte is found."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfsad_bench.errors import StoreError
from medfsad_bench.store import Dataset, prepared_files, verify_store
from medfsad_bench.store.integrity import membership_digest
from medfsad_bench.store.writer import Packed, StoreHeader, packed_chunk, store_name, write_store

EXTRA = {"organ": "o", "modality": "m", "held_out_with": "[]"}
HEADER = StoreHeader("demo", "toy", "1.0.0", 32, "name = 'toy'", "0.1", "numpy=2", "voxel", extra=EXTRA)


def toy_table(n: int = 8) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "patient": [f"p{k}" for k in range(n)],
            "group": [f"g{k}" for k in range(n)],
            "label": [int(k >= n - 2) for k in range(n)],
            "disease": ["glioma" if k >= n - 2 else "" for k in range(n)],
            "split": ["train" if k < n // 2 else "test" for k in range(n)],
            "path": [f"{k}.png" for k in range(n)],
            "sha256": [f"{k:064d}" for k in range(n)],
            "height": 40,
            "width": 50,
            "spacing_row_mm": np.nan,
            "spacing_column_mm": np.nan,
            "window": "",
            "transfer_syntax": "",
            "warnings": "",
        }
    )


def toy_pixels(index: int) -> tuple[np.ndarray, np.ndarray | None]:
    image = np.random.default_rng([3, index]).integers(0, 256, (32, 32, 1), np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[5:9, 10 : 20 + index] = 1
    return image, mask if index >= 6 else None


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "demo" / store_name(HEADER)
    write_store(path, HEADER, toy_table(), [[0, 1, 2], [2, 0, 1]], toy_pixels)
    return path


def test_images_masks_and_table_come_back(written: Path) -> None:
    dataset = Dataset(written)
    rows = np.array([5, 0, 7])
    assert np.array_equal(dataset.images(rows), np.stack([np.repeat(toy_pixels(int(r))[0], 3, 2) for r in rows]))
    expected = toy_pixels(7)[1]
    assert expected is not None
    assert np.array_equal(dataset.mask(7), expected.astype(bool))
    assert dataset.mask(0).shape == (40, 50)
    assert not dataset.mask(0).any()
    assert dataset.table["id"].tolist() == toy_table()["id"].tolist()
    assert [draw.tolist() for draw in dataset.episodes] == [[0, 1, 2], [2, 0, 1]]
    assert verify_store(written) == []


def test_the_same_content_gives_the_same_digests_and_the_path_does_not_matter(written: Path, tmp_path: Path) -> None:
    moved = toy_table().assign(path="elsewhere.png", warnings="16 bits")
    other = tmp_path / "other.h5"
    write_store(other, HEADER, moved, [[0, 1, 2], [2, 0, 1]], toy_pixels)
    for digest in ("content_digest", "membership_digest"):
        assert Dataset(written).attributes[digest] == Dataset(other).attributes[digest]


@given(st.integers(0, 7), st.integers(0, 31), st.integers(0, 31), st.integers(1, 255))
@settings(max_examples=10)
def test_any_flipped_pixel_is_found(tmp_path_factory: pytest.TempPathFactory, i: int, y: int, x: int, by: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "x.h5"
    write_store(path, HEADER, toy_table(), [[0, 1, 2]], toy_pixels)
    with h5py.File(path, "a") as file:
        file["images"][i, y, x, 0] ^= np.uint8(by)
    assert any("seal" in fault or "content digest" in fault for fault in verify_store(path))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "x.h5"
    write_store(path, HEADER, toy_table(), [[0, 1, 2]], toy_pixels)
    return path


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(max_examples=150)
def test_any_flipped_byte_of_the_file_is_found(sealed: Path, where: float, by: int) -> None:
    """Pixels, table, attributes, HDF5's own bookkeeping and its unused bytes, and the seal itself."""
    content = bytearray(sealed.read_bytes())
    content[int(where * len(content))] ^= by
    path = sealed.with_name("flipped.h5")
    path.write_bytes(bytes(content))
    with suppress(StoreError):  # hit where HDF5 can't even be recognised
        assert verify_store(path)


def test_a_shape_that_no_file_could_hold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_store(path, HEADER, toy_table(), [[0, 1, 2]], toy_pixels)
    with h5py.File(path, "r+") as file:
        del file["episodes/draw00"]
        file.create_dataset("episodes/draw00", (1 << 50,), np.int64, chunks=(1024,))
    assert any("seal" in fault for fault in verify_store(path))


@pytest.mark.parametrize("kept", [0, 100, 600, -1])
def test_a_shortened_or_lengthened_file_is_found(sealed: Path, kept: int) -> None:
    content = sealed.read_bytes()
    path = sealed.with_name("cut.h5")
    path.write_bytes(content[:kept])
    with suppress(StoreError):
        assert verify_store(path)
    path.write_bytes(content + b"x")
    assert verify_store(path)


def test_a_file_from_before_the_seal_is_still_sound(sealed: Path) -> None:
    path = sealed.with_name("old.h5")
    with h5py.File(sealed) as file, h5py.File(path, "w", libver="v110") as old:
        for name in file:
            file.copy(name, old)
        for key, value in file.attrs.items():
            old.attrs[key] = value
    assert path.read_bytes()[:4] == b"\x89HDF"
    assert verify_store(path) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_chunks_that_were_packed_elsewhere_are_stored_as_they_are(sealed: Path, tmp_path: Path, workers: int) -> None:
    def packed(index: int) -> Packed:
        image, mask = toy_pixels(index)
        return (
            Packed(packed_chunk(image)) if mask is None else Packed(packed_chunk(image), packed_chunk(mask), (40, 50))
        )

    def write(name: str, chunks: Callable[[int], Packed]) -> None:
        write_store(tmp_path / name, HEADER, toy_table(), [[0, 1, 2]], toy_pixels, chunks=chunks, workers=workers)

    write("x.h5", packed)
    assert Dataset(tmp_path / "x.h5").attributes["content_digest"] == Dataset(sealed).attributes["content_digest"]
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file["images"].compression, file["images"].shuffle) == ("gzip", True)
    with pytest.raises(StoreError, match="doesn't verify"):
        write("y.h5", lambda index: replace(packed(index), image=packed(7 - index).image))
    with pytest.raises(StoreError, match="doesn't verify"):
        write(
            "z.h5", lambda index: replace(packed(index), mask=packed(13 - index).mask) if index > 5 else packed(index)
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize("column", ["id", "group", "sha256", "split"])
def test_a_changed_table_changes_the_membership(column: str) -> None:
    changed = toy_table()
    changed.loc[3, column] = "other"
    assert membership_digest(changed, [[0]]) != membership_digest(toy_table(), [[0]])


def test_membership_is_independent_of_row_order() -> None:
    table = toy_table()
    turned = table.iloc[::-1].reset_index(drop=True)
    assert membership_digest(table, [[0, 1]]) == membership_digest(turned, [[7, 6]])


def test_a_group_on_both_sides_is_not_written(tmp_path: Path) -> None:
    leaky = toy_table().assign(group="one")
    with pytest.raises(StoreError, match="both sides"):
        write_store(tmp_path / "x.h5", HEADER, leaky, [[0]], toy_pixels)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_reading_an_image_fails(tmp_path: Path) -> None:
    def broken(index: int) -> tuple[np.ndarray, np.ndarray | None]:
        if index == 4:
            raise OSError("No space left on device")
        return toy_pixels(index)

    with pytest.raises(StoreError, match="No space left"):
        write_store(tmp_path / "x.h5", HEADER, toy_table(), [[0]], broken)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_prepared_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no hdf5")
    with pytest.raises(StoreError, match="can't be opened"):
        Dataset(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["schema"] = 99
    with pytest.raises(StoreError, match="schema is 99"):
        Dataset(tmp_path / "b.h5")
    with pytest.raises(StoreError, match="doesn't exist"):
        Dataset(tmp_path / "c.h5")


def test_the_name_of_a_smaller_file_says_so() -> None:
    smaller = StoreHeader("demo", "toy", "1.0.0", 32, "", "", "", "none", allowed=("smaller",))
    assert store_name(smaller) == "toy-1.0.0-smaller-32px.h5"


def test_a_file_that_is_being_written_is_not_among_the_prepared_ones(tmp_path: Path) -> None:
    path = tmp_path / store_name(HEADER)
    meanwhile: list[Path] = []

    def pixels(index: int) -> tuple[np.ndarray, np.ndarray | None]:
        meanwhile.extend(prepared_files(tmp_path))
        return toy_pixels(index)

    write_store(path, HEADER, toy_table(), [[0]], pixels)
    assert meanwhile == []
    assert prepared_files(tmp_path) == [path]
