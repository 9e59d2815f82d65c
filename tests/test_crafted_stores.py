"""Prepared files as an attacker would craft them: one paragraph each, and nothing read from elsewhere.

Each attempt starts from a sound file and changes one thing of it.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_store import HEADER, toy_pixels, toy_table, written  # noqa: F401 - a fixture

from medfsad_bench.errors import StoreError
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.store import Dataset, verify_store
from medfsad_bench.store.writer import write_store

Attempt = Callable[[h5py.File, Path], None]


def replaced(name: str, **new: object) -> Attempt:
    def attempt(file: h5py.File, _: Path) -> None:
        del file[name]
        file.create_dataset(name, **new)

    return attempt


def attribute(name: str, value: object) -> Attempt:
    def attempt(file: h5py.File, _: Path) -> None:
        file.attrs[name] = value

    return attempt


def external_link(file: h5py.File, secret: Path) -> None:
    del file["images"]
    file["images"] = h5py.ExternalLink(str(secret), "/secret")


def external_link_in_a_group(file: h5py.File, secret: Path) -> None:
    file["masks/3"] = h5py.ExternalLink(str(secret), "/secret")


def soft_link(file: h5py.File, _: Path) -> None:
    file["masks/3"] = h5py.SoftLink("/masks/7")


def external_storage(file: h5py.File, secret: Path) -> None:
    del file["masks/7"]
    file.create_dataset("masks/7", (40, 50), np.uint8, external=[(str(secret), 0, 2000)])


def virtual_source(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((40, 50), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "secret", (40, 50))
    del file["masks/7"]
    file.create_virtual_dataset("masks/7", layout)


def virtual_table(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((8,), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "label", (8,))
    del file["table/label"]
    file.create_virtual_dataset("table/label", layout)


def missing(name: str) -> Attempt:
    def attempt(file: h5py.File, _: Path) -> None:
        del file[name]

    return attempt


def missing_attribute(file: h5py.File, _: Path) -> None:
    del file.attrs["held_out_with"]


def many_attributes(file: h5py.File, _: Path) -> None:
    for number in range(100):
        file.attrs[f"a{number}"] = 0


def one_chunk_for_all(file: h5py.File, _: Path) -> None:
    del file["images"]
    file.create_dataset(
        "images", data=np.zeros((8, 32, 32, 1), np.uint8), chunks=(8, 32, 32, 1), compression="gzip", shuffle=True
    )


def absent_chunks(file: h5py.File, _: Path) -> None:
    del file["images"]
    file.create_dataset("images", (8, 32, 32, 1), np.uint8, chunks=(1, 32, 32, 1))


def reference(file: h5py.File, _: Path) -> None:
    file.attrs["organ"] = file["images"].ref


def other_filter(file: h5py.File, _: Path) -> None:
    del file["masks/7"]
    file.create_dataset("masks/7", data=np.zeros((40, 50), np.uint8), compression="lzf")


def long_text(file: h5py.File, _: Path) -> None:
    file["table/warnings"][:] = "w" * 100_000


def a_group_for_images(file: h5py.File, _: Path) -> None:
    del file["images"]
    file.create_group("images")


TEXT = h5py.string_dtype()
LEADS_OUT: list[Attempt] = [
    external_link,
    external_link_in_a_group,
    soft_link,
    external_storage,
    virtual_source,
    virtual_table,
]
ON_OPEN: list[tuple[Attempt, str]] = [
    (attribute("schema", "one"), "schema is one"),
    (attribute("schema", np.array([1, 1])), "'schema' is no text or number"),
    (attribute("name", "../../etc"), "'name' is '../../etc'"),
    (attribute("name", 5), "'name' is '5'"),
    (attribute("version", "[red]1"), "'version'"),
    (attribute("size_px", "32"), "'size_px'"),
    (attribute("allowed", "smaller"), "'allowed'"),
    (attribute("allowed", "[" * 100_000), "'allowed'"),
    (attribute("held_out_with", '{"a": 1}'), "'held_out_with'"),
    (attribute("membership_digest", "0" * 63), "'membership_digest'"),
    (attribute("mask_kind", "voxels"), "'mask_kind'"),
    (attribute("note", h5py.Empty("f")), "'note'"),
    (attribute("note", 0.5), "'note'"),
    (reference, "'organ'"),
    (missing_attribute, "'held_out_with' is missing"),
    (many_attributes, "attributes"),
    (missing("images"), "no /images"),
    (a_group_for_images, "no /images"),
    (missing("table/group"), r"lacks the column\(s\) group"),
    (replaced("table/label", data=["0"] * 8, dtype=TEXT), "'label' of its table is text"),
    (replaced("table/label", data=np.zeros(8)), "'label' of its table is float64"),
    (replaced("table/height", data=np.full(8, 40, np.int64)), "'height' of its table is int64"),
    (replaced("table/id", data=["a"] * 9, dtype=TEXT), r"shape \(9,\) for 8 images"),
    (replaced("table/id", data=np.array([b"a"] * 8)), "'id' of its table is bytes8"),
    (replaced("images", data=np.zeros((8, 32, 32, 1))), "/images is float64"),
    (replaced("images", data=np.zeros((8, 32, 31, 1), np.uint8)), "/images is uint8"),
    (replaced("images", data=np.zeros((0, 32, 32, 1), np.uint8)), "/images"),
    (one_chunk_for_all, "one chunk per image"),
    (absent_chunks, "one chunk per image"),
    (other_filter, "packed in a way"),
    (replaced("masks/7", shape=(1 << 40, 50), dtype=np.uint8, chunks=(10, 50)), "more than the file can hold"),
    (replaced("masks/7", data=np.zeros((40, 50, 3), np.uint8)), "/masks/7 is uint8"),
    (replaced("masks/7", data=np.zeros((40, 50))), "/masks/7 is float64"),
    (replaced("episodes/draw00", data=np.zeros(3)), "/episodes/draw00 is float64"),
    (lambda file, _: file.create_dataset("masks/8", data=np.zeros((40, 50), np.uint8)) and None, "/masks/8"),
    (lambda file, _: file.create_dataset("masks/x", data=np.zeros((40, 50), np.uint8)) and None, "/masks/x"),
    (lambda file, _: file.create_dataset("extra", data=1) and None, "/extra"),
]
ON_READING: list[tuple[Attempt, str]] = [
    (long_text, "more than 65,536 bytes"),
    (replaced("table/label", data=np.full(8, 7, np.uint8)), "first label '7'"),
    (replaced("table/split", data=["valid"] * 8, dtype=TEXT), "first split 'valid'"),
    (replaced("table/id", data=["same"] * 8, dtype=TEXT), "first id 'same'"),
    (replaced("table/height", data=np.full(8, -1, np.int32)), "first height '-1'"),
    (replaced("episodes/draw00", data=np.array([0, 8])), "isn't among its 8"),
    (replaced("episodes/draw00", data=np.array([0, -1])), "isn't among its 8"),
    (replaced("masks/7", data=np.ones((4, 5), np.uint8)), "the mask of image 7"),
]


def crafted(path: Path, attempt: Attempt) -> Path:
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as file:
        file["secret"], file["label"] = np.full((40, 50), 42, np.uint8), np.zeros(8, np.uint8)
    with h5py.File(path, "r+") as file:
        attempt(file, secret)
    return path


@pytest.mark.parametrize("attempt", LEADS_OUT)
def test_what_leads_to_another_file_is_refused_on_opening(written: Path, attempt: Attempt) -> None:  # noqa: F811
    with pytest.raises(StoreError, match=r"is a link|takes its data from another file") as refusal:
        Dataset(crafted(written, attempt))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("attempt", "says"), ON_OPEN)
def test_what_is_not_of_the_form_is_refused_on_opening(written: Path, attempt: Attempt, says: str) -> None:  # noqa: F811
    with pytest.raises(StoreError, match=says) as refusal:
        Dataset(crafted(written, attempt))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 700


@pytest.mark.parametrize(("attempt", "says"), ON_READING)
def test_what_only_the_values_show_is_refused_where_they_are_read(
    written: Path,  # noqa: F811
    attempt: Attempt,
    says: str,
) -> None:
    dataset = Dataset(crafted(written, attempt))
    with pytest.raises(StoreError, match=says):
        assert (dataset.table, dataset.episodes, dataset.mask(7)) is None


def test_a_damaged_chunk_is_a_paragraph(written: Path) -> None:  # noqa: F811
    with h5py.File(written, "r+") as file:
        file["images"].id.write_direct_chunk((5, 0, 0, 0), b"no deflated bytes")
    with pytest.raises(StoreError, match=r"can't be read .* was damaged"):
        Dataset(written).images(np.array([5]))


@pytest.mark.parametrize("share", [number / 40 for number in range(40)])
def test_a_flipped_byte_is_read_or_refused_in_one_paragraph(written: Path, share: float) -> None:  # noqa: F811
    """Most of what it hits is HDF5's bookkeeping, whose checksums fail wherever h5py comes to it first."""
    content = bytearray(written.read_bytes())
    content[int(share * len(content))] ^= 1
    written.write_bytes(content)
    with suppress(StoreError):
        assert verify_store(written)
    refusal = ""
    try:
        dataset = Dataset(written)
        assert dataset.images(np.arange(8)).shape == (8, 32, 32, 3)
        assert len(dataset.table) == len(dataset.has_mask()) == 8
        assert all(dataset.mask(row).shape == (40, 50) for row in range(8))
    except StoreError as error:
        refusal = str(error)
    assert re.search(r"remove it and prepare the set again|don't use it|^$", refusal, re.IGNORECASE)


def test_a_file_that_is_exchanged_after_it_was_opened_is_looked_at_again(written: Path) -> None:  # noqa: F811
    dataset = Dataset(written)
    crafted(written, external_link_in_a_group)
    with pytest.raises(StoreError, match="is a link"):
        dataset.mask(3)


def test_every_command_refuses_it_in_one_paragraph_with_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "data" / "demo" / "toy-1.0.0-32px.h5"
    write_store(path, HEADER, toy_table(), [[0, 1, 2]], toy_pixels)
    crafted(path, external_storage)
    path.with_name("secret.h5").unlink()
    code = (
        "import sys; from medfsad_bench.cli import main\n"
        "for words in sys.argv[1:]:\n"
        "    sys.argv = ['medfsad', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: print('exit', end.code, file=sys.stderr)\n"
    )
    commands = [f"inspect {path}", f"export {path} --out {tmp_path / 'x.csv'}"]
    commands.append(f"run shortcut --target toy --shots 2 --data {tmp_path / 'data'} --runs {tmp_path / 'runs'}")
    done = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True, check=False)
    text = " ".join(done.stderr.split())
    assert text.count("Error: ") == text.count("exit 2") == text.count("takes its data from another file") == 3
    assert "Traceback" not in text
    assert not (tmp_path / "x.csv").exists()


def test_kept_maps_that_lead_elsewhere_are_not_read_and_are_written_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_maps(0, np.zeros((2, 4, 4), np.float32), np.array([0, 1]))
    assert folder.maps(0, np.array([1])).shape == (1, 4, 4)
    (kept,) = tmp_path.rglob("*.h5")
    (tmp_path / "other.h5").write_bytes(kept.read_bytes())
    with h5py.File(kept, "r+") as file:
        del file["rows"]
        file["rows"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/rows")
    with pytest.raises(StoreError, match="is a link"):
        folder.maps(0, np.array([1]))
    assert not folder.has_maps(0)
    folder.save_maps(0, np.ones((2, 4, 4), np.float32), np.array([0, 1]))
    assert folder.maps(0, np.array([1])).max() == 1
