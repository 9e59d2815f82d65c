"""Tables of a user's own images, as spreadsheets write them: and all that is odd in them is said."""

from collections import defaultdict
from pathlib import Path

import pytest

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import Content, Finding, RawImage, recognise
from medfsad_bench.layouts.own import table_images
from medfsad_bench.layouts.table_file import read_table

FILES = [f"img/{label}{k}.png" for label in "na" for k in range(6)]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def study(root: Path, header: str, cells: list[str], encoding: str = "utf-8") -> Path:
    """Twelve files `img/…` and a table whose first columns are path and label."""
    touch(root, *FILES)
    separator = next(sign for sign in ";\t," if sign in header)
    rows = [[name, "normal" if name[4] == "n" else "anomalous", cell] for name, cell in zip(FILES, cells, strict=True)]
    lines = [header, *(separator.join(row) for row in rows)]
    (root / "table.csv").write_bytes("\r\n".join(lines).encode(encoding))
    return root


def content(root: Path) -> Content:
    (download,), _ = recognise(root)
    return Content(download.images, download.findings)


def groups(images: list[RawImage]) -> set[frozenset[str]]:
    members: dict[str, set[str]] = defaultdict(set)
    for image in images:
        members[image.patient].add(image.id)
    return {frozenset(ids) for ids in members.values()}


def by_fault(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.fault: finding for finding in findings}


PAIRS = [f"P{k // 2}" for k in range(12)]  # two images a patient
TWOS = {frozenset({FILES[k][:-4], FILES[k + 1][:-4]}) for k in range(0, 12, 2)}


@pytest.mark.parametrize(
    "column",
    [
        *("patient", "Patient", "patient_id", "PatientID", "Patient ID", "PATIENT-ID", " patient. id ", "subject"),
        *("Subject_ID", "case", "CaseID", "eye", "participant_id", "MRN", "slide", "study"),
    ],
)
def test_a_column_of_patients_is_known_by_any_of_its_names(tmp_path: Path, column: str) -> None:
    images = content(study(tmp_path, f"path,label,{column}", PAIRS)).images
    assert groups(images) == TWOS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path: Path, encoding: str, separator: str) -> None:
    header = separator.join(("Filename", "Diagnosis", "Patient ID", "Röntgen"))
    rows = [separator.join((f'"img/{n}{k}.png"', word, '"P, 1; a"', "ü"))
            for n, word in (("n", "healthy"), ("a", "Abnormal")) for k in range(3)]  # fmt: skip
    rows += [separator.join(('"img/n5.png"', "0", "P2", "ü"))]
    touch(tmp_path, *FILES)
    (tmp_path / "T.CSV").write_bytes("\r\n".join([header, *rows]).encode(encoding))
    images = content(tmp_path).images
    assert {image.id: (image.label, image.patient) for image in images} == {
        **{f"img/n{k}": ("normal", "P, 1; a") for k in range(3)},
        **{f"img/a{k}": ("anomalous", "P, 1; a") for k in range(3)},
        "img/n5": ("normal", "P2"),
    }


def test_the_separator_that_a_spreadsheet_states_in_a_first_line_is_used(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\npath;label\na,b.png;normal\n")
    assert read_table(tmp_path / "t.csv").rows == {3: {"path": "a,b.png", "label": "normal"}}


def test_a_row_of_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,normal,b.png\n")
    with pytest.raises(DownloadError, match="as many cells in each row"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("cells", "fault", "expected"),
    [
        (["1.0", "1", "2.0", "2", *PAIRS[4:]], "patient-spellings", TWOS),
        (["001", "1", "p1", "P1", *PAIRS[4:]], "patient-spellings", TWOS),
        (["1E+05", "100000", "2E+05", "200000", *PAIRS[4:]], "mangled-ids", TWOS),
        ([*PAIRS[:10], "", "unknown"], "no-patient", None),
        (["ANONYMOUS"] * 12, "anonymous-patients", None),
        (["0000"] * 12, "anonymous-patients", None),
    ],
)
def test_ids_that_are_mangled_missing_or_nobody_are_named(
    tmp_path: Path, cells: list[str], fault: str, expected: set[frozenset[str]] | None
) -> None:
    whole = content(study(tmp_path, "path,label,patient", cells))
    assert not by_fault(whole.findings)[fault].stops
    left = {frozenset({name[:-4]}) for name in FILES}
    assert groups(whole.images) == (expected or (left if len(set(cells)) == 1 else {*list(TWOS)} - {
        frozenset({"img/a4", "img/a5"})} | {frozenset({"img/a4"}), frozenset({"img/a5"})}))  # fmt: skip


def test_an_unused_column_that_looks_like_patients_is_named(tmp_path: Path) -> None:
    findings = content(study(tmp_path / "a", "path,label,Ward number", PAIRS)).findings
    assert by_fault(findings)["unused-column"].where == "table.csv: Ward number"
    shuffled = [f"{k % 2}" for k in range(12)]
    assert content(study(tmp_path / "b", "path,label,sex", shuffled)).findings == ()
    assert content(study(tmp_path / "c", "path,label,eye", ["left", "right"] * 6)).findings == ()


def test_equal_rows_are_one_image_and_rows_that_differ_unite_their_masks(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "n.png", "m1.png", "m2.png")
    rows = ["a.png,1,p,m1.png", "n.png,0,q,", "n.png,0,q,", "a.png,1,p,m2.png"]
    (tmp_path / "t.csv").write_text("\n".join(["image,class,patient,mask", *rows]))
    whole = content(tmp_path)
    assert [(image.id, len(image.masks)) for image in whole.images] == [("a", 2), ("n", 0)]
    assert by_fault(whole.findings)["duplicate-rows"].where == "t.csv: n.png and 1 more"
    (tmp_path / "t.csv").write_text("\n".join(["image,class,patient,mask", *rows, "a.png,1,r,"]))
    with pytest.raises(DownloadError, match=r"line 6: a\.png has two patients"):
        recognise(tmp_path)


def test_headers_and_words_that_a_user_names_are_used(tmp_path: Path) -> None:
    touch(tmp_path, *FILES)
    rows = [f"{name},{'fine' if name[4] == 'n' else 'odd'},{k % 3}" for k, name in enumerate(FILES)]
    (tmp_path / "t.csv").write_text("\n".join(["what,how,who", *rows]))
    columns = {"path": "what", "label": "how", "patient": "who", "mask": "mask"}
    whole = table_images(tmp_path, columns, {"fine": "normal", "*": "anomalous"})
    assert whole is not None
    assert [image.label for image in whole.images] == ["normal"] * 6 + ["anomalous"] * 6
    assert len(groups(whole.images)) == 3


def test_a_table_beside_class_folders_tells_the_patients_by_names_alone(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{label[0]}{k}.png" for label in ("normal", "anomalous") for k in range(4)))
    (tmp_path / "info.csv").write_text("File name;Patient\n" + "".join(f"{c}{k};{k}\n" for c in "na" for k in range(3)))
    whole = content(tmp_path)
    assert {frozenset({f"normal/n{k}", f"anomalous/a{k}"}) for k in range(3)} <= groups(whole.images)
    assert by_fault(whole.findings)["no-patient"].where == "normal/n3.png and 1 more"
    (tmp_path / "info.csv").write_text("path,label,patient\nnormal/n0.png,anomalous,1\n")
    with pytest.raises(DownloadError, match=r"normal/n0\.png: lies in the folder of normal images, and a table says"):
        recognise(tmp_path)


def test_whatever_is_not_used_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "normal/n.png", "anomalous/a.png", "normal/Thumbs.db", "anomalous/readme.txt", "other/x.png")
    (tmp_path / "prices.csv").write_text("item,price\nx,1\n")
    findings = by_fault(content(tmp_path).findings)
    assert {fault: finding.where for fault, finding in findings.items()} == {
        "unused-files": "anomalous/readme.txt and 1 more", "unused-images": "other/x.png", "unused-table": "prices.csv",
    }  # fmt: skip
