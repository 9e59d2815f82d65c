"""Patients of a user's own images: by table, header or folder, the coarser of two readings, and said."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import Silent, write_own_folder
from hypothesis import given
from hypothesis import strategies as st
from test_dicom import write as write_dicom
from test_own_tables import content, touch

from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts import recognise
from medfsad_bench.layouts.headers import Header
from medfsad_bench.layouts.patients import Source, patients_by_file
from medfsad_bench.store import Dataset


def source(path: str, label: str = "normal", **header: str) -> Source:
    *folders, _ = path.split("/")
    return Source(Path("/", label, path), f"{label}/{path}", label, tuple(folders), Header(**header))  # type: ignore[arg-type]


def grouped(*sources: Source) -> set[frozenset[str]]:
    patients, _ = patients_by_file(sources)
    members: dict[str, set[str]] = defaultdict(set)
    for item in sources:
        members[patients[item.path]].add("/".join(item.path.parts[2:]))
    return {frozenset(paths) for paths in members.values()}


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([source("P1/a"), source("P1/b"), source("P2/a")], [{"P1/a", "P1/b"}, {"P2/a"}]),
        ([source("x/P1/a"), source("x/P1/b"), source("x/P2/a")], [{"x/P1/a", "x/P1/b"}, {"x/P2/a"}]),
        ([source("s1/P1/a"), source("s1/P2/a"), source("s2/P3/a")], [{"s1/P1/a", "s1/P2/a"}, {"s2/P3/a"}]),
        (
            [source("sub-01/ses-1/a"), source("sub-01/ses-2/a"), source("sub-02/ses-1/a")],
            [{"sub-01/ses-1/a", "sub-01/ses-2/a"}, {"sub-02/ses-1/a"}],
        ),
        ([source("sub-1_s1"), source("sub-1_s2"), source("sub-2")], [{"sub-1_s1", "sub-1_s2"}, {"sub-2"}]),
        ([source("a"), source("b")], [{"a"}, {"b"}]),
        ([source("one/a"), source("one/b")], [{"one/a"}, {"one/b"}]),  # a folder that holds all tells nothing
        (
            [source("A/a", patient="p"), source("B/b", patient="p"), source("B/c", patient="q")],
            [{"A/a", "B/b"}, {"B/c"}],
        ),
        (
            [source("A/a", study="1"), source("B/b", study="1"), source("B/c", study="2"), source("C/d", study="3")],
            [{"A/a", "B/b", "B/c"}, {"C/d"}],
        ),
        ([source("a", patient="ANONYMOUS", study="1"), source("b", patient="ANONYMOUS", study="1"), source("c")],
         [{"a", "b"}, {"c"}]),
        ([source("a", patient="X7", study="1"), source("b", patient="X7", study="2")], [{"a"}, {"b"}]),
    ],
)  # fmt: skip
def test_groups_by_headers_and_folders(sources: list[Source], expected: list[set[str]]) -> None:
    assert grouped(*sources) == set(map(frozenset, expected))


@pytest.mark.parametrize(
    ("names", "findings"),
    [
        ([f"P{p}_s{k}.png" for p in range(3) for k in range(2)], ["names-like-patients"]),
        ([f"benign ({k}).png" for k in range(9)], []),
        ([f"case{k}.png" for k in range(9)], []),
        ([f"IM-{k}-0001.png" for k in range(9)], []),
    ],
)
def test_names_that_could_be_patients_are_a_finding_and_group_nothing(names: list[str], findings: list[str]) -> None:
    sources = [source(name) for name in names]
    patients, noted = patients_by_file(sources)
    assert len(set(patients.values())) == len(names)
    assert [finding.fault for finding in noted] == findings


def test_the_same_folder_in_both_classes_is_one_patient() -> None:
    assert len(grouped(source("P1/a"), source("P2/b"), source("P1/c", "anomalous"), source("P3/d", "anomalous"))) == 3


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["", "1", "2"]), st.sampled_from(["", "p", "q"]))))
def test_files_that_share_a_patient_or_that_lack_one_and_share_a_study_are_never_parted(
    facts: list[tuple[str, str, str]],
) -> None:
    sources = [source(f"{f}/{k}", study=study_uid, patient=p) for k, (f, study_uid, p) in enumerate(facts)]
    patients, _ = patients_by_file(sources)
    everybody = {p for *_, p in facts}
    for own, (_, study_uid, p) in zip(sources, facts, strict=True):
        for other, (_, other_uid, other_p) in zip(sources, facts, strict=True):
            same_patient = p == other_p != "" and len(everybody) > 1
            same_study = study_uid == other_uid != "" and p == other_p == ""
            if same_patient or same_study:
                assert patients[own.path] == patients[other.path]


def test_dicom_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 4096, (2, 20, 20)).astype(np.uint16)
    names = ["1.2.826.0.1", "1.2.826.0.2", "IM_0001", "scan.png", "x.dat"]
    for label in ("normal", "anomalous"):
        for k, name in enumerate(names):
            path = tmp_path / label / name
            path.parent.mkdir(exist_ok=True)
            write_dicom(path, stored, PatientID=f"{label[0]}{k // 2}")
    images = content(tmp_path).images
    assert len(images) == len({image.id for image in images}) == 2 * len(names) * 2, "each of two frames"
    assert {image.patient for image in images} == {f"{label}{k}" for label in "na" for k in range(3)}


def test_two_files_of_one_name_have_two_ids(tmp_path: Path) -> None:
    touch(tmp_path, "normal/n.png", "normal/n.jpg", "normal/m.png", "anomalous/a.png")
    assert [image.id for image in content(tmp_path).images] == [
        "normal/m",
        "normal/n.jpg",
        "normal/n.png",
        "anomalous/a",
    ]


def prepared(download: Path, out: Path, **options: object) -> SetReport:
    return prepare(download, PrepareOptions(out, **{"size_px": 64, **options}), watcher=Silent())[0][0]  # type: ignore[arg-type]


def test_a_table_that_parts_what_the_headers_call_one_patient_stops(tmp_path: Path) -> None:
    for label, count in (("normal", 8), ("anomalous", 4)):
        (tmp_path / "ward" / label).mkdir(parents=True)
        for k in range(count):
            coarse = np.random.default_rng([k, count]).integers(200, 3000, (8, 8)).astype(np.uint16)
            write_dicom(
                tmp_path / "ward" / label / f"{k}.dcm",
                np.kron(coarse, np.ones((5, 5), np.uint16)),
                PatientID=f"{label}{k // 4}",
            )
    rows = [f"{label}/{k}.dcm,{label}{k}\n" for label, n in (("normal", 8), ("anomalous", 4)) for k in range(n)]
    (tmp_path / "ward" / "t.csv").write_text("path,patient\n" + "".join(rows))
    with pytest.raises(CurationError, match="one-patient"):
        prepared(tmp_path / "ward", tmp_path / "out")


def test_the_console_counts_what_is_not_used(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=1, masks=False)
    (tmp_path / "ward" / "normal" / "Thumbs.db").write_bytes(b"\0" * 40)
    report = prepared(tmp_path / "ward", tmp_path / "out")
    assert [finding["where"] for finding in report.findings] == ["normal/Thumbs.db"]


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        *("csv_patient_header_Patient", "csv_patient_header_patient_id", "plain_and_csv", "png_patient_subfolders"),
        *("dicom_uid_names_one_folder_each", "csv_semicolon", "csv_cp1252", "csv_duplicate_rows"),
    ],
)
def test_cases_that_once_put_patients_on_both_sides(shared: Path, tmp_path: Path, name: str) -> None:
    report = prepared(shared / "cases" / name, tmp_path)
    table = Dataset(Path(report.path)).table
    assert table.groupby("patient")["split"].nunique().max() == 1
    size = 2 if name in ("csv_semicolon", "csv_cp1252", "csv_duplicate_rows") else 4
    assert set(table.loc[table["split"] == "train"].groupby("patient").size()) == {size}


@pytest.mark.shared
def test_four_pictures_under_both_labels_stop_and_are_named(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CurationError, match=r"4 fault\(s\) of kind both-labels") as caught:
        prepared(shared / "cases" / "same_image_in_both_classes", tmp_path)
    assert all(f"normal/n{k} ~ anomalous/copy{k}" in str(caught.value) for k in range(4))


@pytest.mark.shared
def test_aptos_is_read_from_the_folder_that_its_manifest_names(shared: Path) -> None:
    (download,), _ = recognise(shared / "cases" / "aptos_with_processed_copy")
    assert {image.path.parent.name for image in download.images} == {"train_images"}
    assert [(f.fault, f.stops) for f in download.findings] == [("unused-images", False)]
