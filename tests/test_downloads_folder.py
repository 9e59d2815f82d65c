"""A full Downloads folder: found at any depth and in zip files, incomplete sets named, one bad thing stops nothing."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Silent, write_own_folder
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_layouts import picture, zipped

from medfsad_bench.curation.scan import scan
from medfsad_bench.curation.stage import PrepareOptions, SetReport, SetsFailedError, prepare
from medfsad_bench.demo import write_demo_downloads
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts import LeftAlone, discovery, recognise
from medfsad_bench.layouts import archives as zips


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "raw"
    write_demo_downloads(folder, scale=0.2)
    return folder


def prepared(folder: Path, out: Path, **options: object) -> tuple[list[SetReport], list[LeftAlone]]:
    return prepare(folder, PrepareOptions(out, **{"size_px": 64, **options}), watcher=Silent())  # type: ignore[arg-type]


def flagged_as_encrypted(archive: Path) -> None:
    """Set the flag of encryption in the local and in the central header of the first member."""
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))


def test_everything_is_found_wherever_it_lies_and_however_packed(demo: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "Downloads"
    shutil.copytree(demo / "LAG_database", downloads / "old" / "2023" / "archive" / "LAG_database")
    zipped(demo / "brain-tumor-mri-dataset", downloads / "archive.zip", inside="archive/")
    shutil.copy(downloads / "archive.zip", downloads / "archive (1).zip")
    rsna = demo / "rsna-pneumonia-detection-challenge"
    (downloads / "kaggle").mkdir()
    for table in rsna.glob("*.csv"):
        shutil.copy(table, downloads / "kaggle")
    zipped(rsna / "stage_2_train_images", downloads / "kaggle" / "stage_2_train_images.zip")
    for name in ("__MACOSX", "empty"):
        (downloads / name).mkdir()
    (downloads / "Thumbs.db").touch()
    recognised, left_alone = recognise(downloads)
    assert {(item.layout, item.origin.relative_to(downloads).as_posix()) for item in recognised} == {
        ("lag", "old/2023/archive/LAG_database"), ("brain_tumor", "archive.zip"), ("rsna", "kaggle"),
    }  # fmt: skip
    assert {(item.name, item.kind) for item in left_alone} == {("archive", "copy"), ("empty", "unknown")}
    counts = {item.layout: len(item.images) for item in recognised}
    assert counts == {item.layout: len(item.images) for item in recognise(demo)[0] if item.layout in counts}


def test_parts_are_one_download_unpacked_or_packed_with_the_ids_of_the_whole(demo: Path, tmp_path: Path) -> None:
    """LAG's two parts, each with one class; and as a cloud drive cuts a folder into numbered zip files."""
    (whole,), _ = recognise(demo / "LAG_database")
    classes = sorted(path for path in (demo / "LAG_database").iterdir() if path.is_dir())
    for number, folder in enumerate(classes, start=1):
        shutil.copytree(folder, tmp_path / "a" / f"LAG_part_{number}" / folder.name)
        zipped(folder, tmp_path / "b" / f"drive-download-00{number}.zip", inside=f"LAG_database/{folder.name}/")
    for name in ("a", "b"):
        (joined,), left_alone = recognise(tmp_path / name)
        assert (joined.layout, left_alone) == ("lag", [])
        assert {image.id for image in joined.images} == {image.id for image in whole.images}
    (report,), _ = prepared(tmp_path / "b", tmp_path / "out", benchmark="demo")
    (same,), _ = prepared(tmp_path / "a", tmp_path / "out2", benchmark="demo")
    assert report.content_digest == same.content_digest
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_wards_with_numbers_stay_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        write_own_folder(tmp_path / f"ward_part_{number}", seed=number, masks=False, normal=4, anomalous=2)
    assert [item.root.name for item in recognise(tmp_path)[0]] == ["ward_part_1", "ward_part_2"]


def test_only_the_wanted_part_of_an_archive_is_unpacked(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = zipped(demo, tmp_path / "everything.zip")
    written: list[int] = []
    inner = zips._path_for

    def counted(*given: Any) -> Path:
        written.append(1)
        return inner(*given)

    monkeypatch.setattr(zips, "_path_for", counted)
    options = PrepareOptions(tmp_path / "out", "demo", 64)
    prepare(everything, options, datasets=["lag"], watcher=Silent())
    outlined = sum(path.is_file() for path in demo.rglob("[!.]*"))
    assert len(written) == outlined + sum(path.is_file() for path in (demo / "LAG_database").rglob("*"))


def test_one_bad_thing_is_a_line_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own_folder(tmp_path / "d" / "ward", seed=1, masks=False, normal=6, anomalous=3)
    write_own_folder(tmp_path / "d" / "locked", seed=1, masks=False, normal=6, anomalous=3)
    (tmp_path / "d" / "damaged.zip").write_bytes(b"PK\x03\x04 cut")
    zipped(picture(tmp_path / "x" / "normal" / "a.png").parent.parent, tmp_path / "d" / "secret.zip")
    flagged_as_encrypted(tmp_path / "d" / "secret.zip")
    inner = discovery.LAYOUTS["plain"]

    def refused(root: Path) -> object:
        if root.name == "locked":
            raise PermissionError(13, "Permission denied")
        return inner(root)

    monkeypatch.setitem(discovery.LAYOUTS, "plain", refused)
    reports, left_alone = prepared(tmp_path / "d", tmp_path / "out")
    assert [report.name for report in reports] == ["ward"]
    reasons = {item.name: item.reason for item in left_alone}
    assert "can't be listed (Permission denied)" in reasons["locked"]
    assert "zip file is damaged" in reasons["damaged.zip"]
    assert "is encrypted" in reasons["secret.zip"]
    assert "damaged" not in reasons["secret.zip"]


def test_a_set_that_fails_does_not_stop_the_others_and_all_reasons_come_at_once(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "d" / "a", seed=1, masks=False, normal=6, anomalous=3)
    for name in ("b", "c"):
        picture(tmp_path / "d" / name / "normal" / "p.png")
        picture(tmp_path / "d" / name / "anomalous" / "q.png")
    with pytest.raises(SetsFailedError, match="b: all 1 normal images are of one group") as failed:
        prepared(tmp_path / "d", tmp_path / "out")
    assert [report.name for report in failed.value.reports] == ["a"]
    assert len(failed.value.reasons) == 2
    shutil.rmtree(tmp_path / "d" / "a")
    shutil.rmtree(tmp_path / "d" / "c")
    with pytest.raises(CurationError, match="one group"):
        prepared(tmp_path / "d", tmp_path / "out")


def test_scan_says_what_is_there_incomplete_elsewhere_own_or_nowhere(
    medfsad: Medfsad,  # noqa: F811
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "d"
    shutil.copytree(demo / "LAG_database", folder / "LAG_database")
    shutil.copytree(demo / "brain-tumor-mri-dataset" / "Training", folder / "brain" / "Training")
    shutil.copytree(demo / "BraTS2021_Training_Data", folder / "brats")
    write_own_folder(folder / "ward", seed=1, masks=False, normal=6, anomalous=3)
    picture(folder / "flat" / "a.png")
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = medfsad("prepare", "--source", folder, "--scan", "--json")
    seen = json.loads(out)
    assert code == 0
    lag = len(recognise(demo / "LAG_database")[0][0].images)
    by_path = {Path(sight["path"]).name: (sight["status"], sight["name"]) for sight in seen["sights"]}
    assert by_path == {
        "LAG_database": ("incomplete", "lag"), "brain": ("incomplete", "brain_tumor"), "ward": ("own", "ward"),
        "brats": ("other benchmark", ""), "flat": ("not recognised", ""),
    }  # fmt: skip
    details = {Path(sight["path"]).name: sight["detail"] for sight in seen["sights"]}
    lacking = int(details["LAG_database"].split()[1].replace(",", ""))
    assert 3122 - lag <= lacking < 3122
    assert "lacks Testing/notumor" in details["brain"]
    assert "--benchmark medfsad-pixel takes it" in details["brats"]
    assert details["ward"] == "6 normal, 3 anomalous"
    assert {item["name"] for item in seen["absent"]} == {"rsna", "aptos", "his"}
    assert all(item["obtain"] for item in seen["absent"])
    code, out, _ = medfsad("prepare", "--source", folder, "--dry-run", "--dataset", "rsna")
    assert code == 1
    assert max(map(len, out.splitlines())) <= 80
    assert "rsna is nowhere here. How to get it" in out
    assert not (tmp_path / "medfsad-data").exists()


def test_the_command_prepares_what_it_can_and_exits_with_1(medfsad: Medfsad, tmp_path: Path) -> None:  # noqa: F811
    write_own_folder(tmp_path / "d" / "ward", seed=1, masks=False, normal=6, anomalous=3)
    asked = ("prepare", "--source", "d", "--size", 64, "--dataset", "ward")
    code, out, _ = medfsad(*asked, "--dataset", "rsna")
    assert code == 1
    assert "not prepared: d: rsna not found" in out
    assert "own" in out
    assert "medfsad-13k " not in out.split("not prepared")[0], "own sets stand under their own title"
    assert (tmp_path / "medfsad-data" / "own" / "ward-0.0.0-64px.h5").is_file()
    assert medfsad(*asked)[0] == 0


def test_missing_files_are_missing_and_not_bad(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rsna"
    shutil.copytree(demo / "rsna-pneumonia-detection-challenge", folder)
    removed = sorted((folder / "stage_2_train_images").glob("*.dcm"))[:2]
    for path in removed:
        path.unlink()
    (report,), _ = prepared(folder, tmp_path / "out", benchmark="demo")
    assert not report.quarantined
    (finding,) = [finding for finding in report.findings if finding["fault"] == "missing-files"]
    assert "aren't there" in finding["what"]


def test_a_name_that_is_no_utf8_can_be_printed(medfsad: Medfsad, tmp_path: Path) -> None:  # noqa: F811
    write_own_folder(tmp_path / "d" / "ward", seed=1, masks=False, normal=4, anomalous=2)
    Path(os.fsdecode(os.fsencode(tmp_path / "d") + b"/caf\xe9")).mkdir()
    for more in ((), ("--json",), ("--scan",), ("--scan", "--json")):
        code, out, err = medfsad("prepare", "--source", "d", "--size", 64, *more)
        assert code == 0, err
        assert "caf\\xe9" in out.replace("\\\\", "\\")


@pytest.mark.shared
def test_the_shared_cases_stay_apart(shared: Path, tmp_path: Path) -> None:
    cases = shared / "cases"
    seen = scan(cases / "two_folders_one_name", "medfsad-open")
    assert {sight.name for sight in seen.sights} == {"sitea_images", "siteb_images"}
    assert [sight.name for sight in scan(cases / "own_named_lgg", "medfsad-open").sights] == ["own_lgg"]
    (report,), _ = prepared(cases / "one_anomalous_patient", tmp_path / "out")
    assert "one-group" in {finding["fault"] for finding in report.findings}
