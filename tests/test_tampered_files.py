"""A file that somebody altered makes no number; one that is sound and holds other images makes none of the benchmark's.

What can't be found, pixels altered by somebody who also states all digests anew, stands in leaderboard/THREATS.md.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from tampering import Change, altered, stating
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture

from medfsad_bench.errors import StoreError
from medfsad_bench.manifest import OWN, Manifest, Split, all_manifests
from medfsad_bench.store import Dataset, verify_store
from medfsad_bench.store.proof import benchmark_of, prove, why_own

NAME = "ward_b-0.0.0-64px.h5"


@pytest.fixture
def store(own_data: Path, tmp_path: Path) -> Path:
    """A copy of a prepared file, in a folder as `prepare` leaves it."""
    path = tmp_path / "data" / OWN / NAME
    path.parent.mkdir(parents=True)
    shutil.copy(own_data / OWN / NAME, path)
    return path


def rows_where(file: h5py.File, *, anomalous: bool) -> np.ndarray:
    return np.flatnonzero(file["table/label"][:] == anomalous)


def inverted_anomalies(file: h5py.File) -> None:
    for row in rows_where(file, anomalous=True):
        file["images"][row] = 255 - file["images"][row]


def swapped_labels(file: h5py.File) -> None:
    test = file["table/split"].asstr()[:] == "test"
    file["table/label"][:] = np.where(test, 1 - file["table/label"][:], file["table/label"][:])


def put(column: str, row: int, value: str) -> Change:
    def change(file: h5py.File) -> None:
        file[f"table/{column}"][row] = value

    return change


def other_supports(file: h5py.File) -> None:
    file["episodes/draw00"][:] = file["episodes/draw00"][:][::-1]


def anomalous_support(file: h5py.File) -> None:
    file["episodes/draw00"][0] = rows_where(file, anomalous=True)[0]


def test_side_trained(file: h5py.File) -> None:
    """One group on both sides."""
    split = file["table/split"].asstr()[:]
    groups = file["table/group"].asstr()[:]
    file["table/group"][int(np.flatnonzero(split == "test")[0])] = groups[np.flatnonzero(split == "train")[0]]


test_side_trained.__test__ = False  # type: ignore[attr-defined]
TAMPERED: dict[str, Callable[[Path], object]] = {
    "pixels of all anomalies inverted": lambda path: altered(path, inverted_anomalies),
    "the same, sealed anew": lambda path: altered(path, inverted_anomalies, sealed=True),
    "labels of the test swapped": lambda path: altered(path, swapped_labels),
    "the same, sealed anew, other labels": lambda path: altered(path, swapped_labels, sealed=True),
    "an id renamed": lambda path: altered(path, put("id", 0, "another"), sealed=True),
    "a group renamed": lambda path: altered(path, put("group", 0, "another"), sealed=True),
    "the raw file's digest": lambda path: altered(path, put("sha256", 0, "0" * 64), sealed=True),
    "other supports": lambda path: altered(path, other_supports, sealed=True),
    "an anomaly among the supports": lambda path: altered(path, anomalous_support, sealed=True, digests=True),
    "a group on both sides": lambda path: altered(path, test_side_trained, sealed=True, digests=True),
    "the benchmark that it names": lambda path: altered(path, stating(benchmark="medfsad-open")),
    "the membership digest": lambda path: altered(path, stating(membership_digest="0" * 64), sealed=True),
    "its last byte cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte appended": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a byte of the seal": lambda path: path.write_bytes(path.read_bytes().replace(b"sha256 ", b"sha256 0", 1)),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_verify_run_and_submit_refuse_a_tampered_file(
    medfsad: Medfsad,  # noqa: F811
    store: Path,
    tmp_path: Path,
    how: str,
) -> None:
    digest = Dataset(store).attributes["membership_digest"]
    queries = Dataset(store).table.query("split == 'test'")["id"]
    scores = pd.DataFrame({"membership_digest": digest, "draw": 0, "id": queries, "score": range(len(queries))})
    scores.to_csv(tmp_path / "scores.csv", index=False)
    TAMPERED[how](store)
    assert medfsad("verify", store)[0] in (1, 2)
    code, out, err = medfsad("run", "chance", "--data", "data", "--shots", 2, "--draws", 2)
    assert (code, out) == (2, "")
    assert NAME in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "medfsad-runs").exists()
    if how != "the membership digest":  # which no file has then
        assert medfsad("submit", "--scores", "scores.csv", "--method", "mine", "--shots", 2, "--data", "data")[0] == 2
        assert not (tmp_path / "medfsad-runs").exists()


def test_a_damaged_file_is_told_with_the_remedy_by_every_command_that_opens_it(
    medfsad: Medfsad,  # noqa: F811
    own_source: Path,
    store: Path,
) -> None:
    """A byte near the beginning, where HDF5 keeps its books."""
    content = bytearray(store.read_bytes())
    content[len(content) // 100] ^= 255
    store.write_bytes(content)
    code, out, _ = medfsad("verify", store)
    assert code == 1
    told = " ".join(out.split())
    assert told == f"{NAME}: the seal is broken: a byte of the file was changed. Remove it and prepare the set again."
    again = ("prepare", "--source", own_source / "ward_b", "--size", 64, "--out", "data")
    for command in (
        ("inspect", store),
        ("export", store, "--out", "x.csv"),
        ("run", "chance", "--data", "data"),
        again,
    ):
        code, _, err = medfsad(*command)
        assert code == 2
        assert "can't be opened as HDF5" in " ".join(err.split())
        assert "remove it and prepare the set again." in " ".join(err.split())
    store.unlink()
    assert medfsad(*again)[0] == 0
    assert medfsad("verify", store)[:2] == (0, f"{NAME}: sound\n")


def test_a_proof_costs_once_and_is_made_again_after_any_change(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medfsad_bench.store import proof

    proven: list[Path] = []

    def counted(path: Path) -> list[str]:
        proven.append(path)
        return verify_store(path)

    monkeypatch.setattr(proof, "verify_store", counted)
    prove(Dataset(store))
    prove(Dataset(store))
    proof._faults.cache_clear()
    prove(Dataset(store))
    assert len(proven) == 1, "another process reads it beside the file"
    (store.parent / ".proven.json").write_text("[1]", "utf-8")
    proof._faults.cache_clear()
    prove(Dataset(store))
    assert len(proven) == 2, "a damaged memory is none"
    moved = store.rename(store.with_name("moved.h5"))
    shutil.copy2(moved, store)
    prove(Dataset(store))
    assert len(proven) == 3, "the same bytes and times in another file"
    altered(store, inverted_anomalies)
    with pytest.raises(StoreError, match="seal is broken"):
        prove(Dataset(store))


@pytest.fixture
def listed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file as the set `ward_b` of the benchmark `medfsad-x`, whose manifest lists its members."""
    from medfsad_bench.manifest import ids_digest
    from medfsad_bench.store import proof

    table = Dataset(store).table
    rows = list(table[["id", "group", "split"]].astype(str).itertuples(index=False, name=None))
    labels = ["anomalous" if label else "normal" for label in table["label"]]
    lines = [",".join((*row, label)) for row, label in zip(rows, labels, strict=True)]
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "ward_b.ids.csv").write_text("id,group,split,label\n" + "\n".join(lines), "utf-8")
    manifest = all_manifests()["lgg"]
    split = Split(train=12, test_normal=12, test_anomalous=10, ids="ward_b.ids.csv", ids_sha256=ids_digest(rows))
    ours = Manifest.model_validate(
        {**manifest.model_dump(), "name": "ward_b", "version": "0.0.0", "benchmarks": {"medfsad-x": split}}
    )
    monkeypatch.setattr(proof, "all_manifests", lambda: {"ward_b": ours})
    monkeypatch.setattr("medfsad_bench.manifest.resource_dir", lambda _: folder)
    proof._why_own.cache_clear()
    yield altered(store, stating(benchmark="medfsad-x"), sealed=True)
    proof._why_own.cache_clear()


def test_the_manifests_members_make_the_benchmarks_rows(listed: Path) -> None:
    assert why_own(Dataset(listed)) == ""
    assert benchmark_of(Dataset(listed)) == "medfsad-x"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("id", 0, "another"), "its ids, groups or sides aren't those of ward_b.ids.csv"),
        (swapped_labels, "it holds 10 normal images in test, the manifest of ward_b 12"),
        (stating(benchmark="medfsad-y"), "ward_b is no set of medfsad-y"),
        (stating(name="ward_c"), "ward_c is no set of medfsad-x"),
    ],
)
def test_a_sound_file_of_other_members_makes_rows_of_own_alone(listed: Path, change: Change, reason: str) -> None:
    dataset = Dataset(altered(listed, change, digests=True, sealed=True))
    prove(dataset)
    assert why_own(dataset) == reason
    assert benchmark_of(dataset) == OWN


def test_two_labels_that_changed_places_are_found_by_the_list(listed: Path) -> None:
    """The counts stay as they were."""

    def exchange(file: h5py.File) -> None:
        label, test = file["table/label"][:], file["table/split"].asstr()[:] == "test"
        pair = [int(np.flatnonzero(test & (label == value))[0]) for value in (0, 1)]
        label[pair] = [1, 0]
        file["table/label"][:] = label

    dataset = Dataset(altered(listed, exchange, digests=True, sealed=True))
    assert why_own(dataset).startswith("2 labels aren't those of ward_b.ids.csv")


def test_a_file_without_a_seal_names_a_benchmark_in_vain(listed: Path) -> None:
    from medfsad_bench.store.integrity import SEAL_BYTES

    with h5py.File(listed) as sealed, h5py.File(listed.with_name("bare.h5"), "w") as bare:
        for name in sealed:
            sealed.copy(name, bare)
        bare.attrs.update(sealed.attrs)
    assert listed.read_bytes()[:SEAL_BYTES].startswith(b"MEDFSAD")
    assert why_own(Dataset(listed.with_name("bare.h5"))).startswith("the file has no seal")


def test_the_user_is_told_that_a_set_is_not_the_benchmarks(
    medfsad: Medfsad,  # noqa: F811
    store: Path,
    tmp_path: Path,
) -> None:
    """A folder of one's own, named and sealed as the open benchmark's `lgg`, is `own` on every row."""
    path = tmp_path / "data" / "medfsad-open" / "lgg-2.0.0-64px.h5"
    path.parent.mkdir()
    store.rename(path)
    forged = stating(benchmark="medfsad-open", name="lgg", version=all_manifests()["lgg"].version)
    altered(path, forged, sealed=True)
    code, out, err = medfsad("run", "chance", "--data", "data", "--shots", 2, "--draws", 2, "--json")
    assert code == 0, err
    assert [row["benchmark"] for row in json.loads(out)] == [OWN]
    assert "lgg-2.0.0-64px.h5: it holds 12 normal images in train" in " ".join(err.split())


def test_a_name_that_two_sets_share_is_asked_for_by_its_folder(
    medfsad: Medfsad,  # noqa: F811
    store: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / "medfsad-open" / NAME
    path.parent.mkdir()
    shutil.copy(store, path)
    altered(path, stating(benchmark="medfsad-open"), sealed=True)
    asked = ("run", "chance", "--data", "data", "--shots", 2, "--draws", 2, "--json")
    code, _, err = medfsad(*asked, "--target", "ward_b")
    assert code == 2
    assert "own/ward_b or medfsad-open/ward_b" in " ".join(err.split())
    code, out, err = medfsad(*asked, "--target", "own/ward_b")
    assert code == 0, err
    assert len(json.loads(out)) == 1
