"""Preparing: one path from downloads to files whose digests depend on content alone, and that stops on faults."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Silent, write_own_folder
from PIL import Image

from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.store import Dataset, verify_store


def prepared(downloads: Path, out: Path, **options: object) -> list[SetReport]:
    return prepare(downloads, PrepareOptions(out, **{"size_px": 64, **options}), watcher=Silent())[0]  # type: ignore[arg-type]


def digests(reports: list[SetReport]) -> list[tuple[str, str]]:
    return [(report.membership_digest, report.content_digest) for report in reports]


def test_a_prepared_file_is_sound_and_holds_what_the_folder_held(own_data: Path) -> None:
    path = own_data / "own" / "ward_a-0.0.0-64px.h5"
    assert verify_store(path) == []
    dataset = Dataset(path)
    table = dataset.table
    assert len(table) == 34
    assert set(table.loc[table["split"] == "train", "label"]) == {0}
    assert int(table["label"].sum()) == 10
    assert dataset.images(np.array([0])).shape == (1, 64, 64, 3)
    assert dataset.mask(int(np.flatnonzero(table["label"])[0])).shape == (96, 80), (
        "a mask keeps its original resolution"
    )
    assert path.with_name(f"{path.stem}.sheet.png").is_file()


def test_episodes_are_nested_draws_of_distinct_training_groups(own_data: Path) -> None:
    dataset = Dataset(own_data / "own" / "ward_b-0.0.0-64px.h5")
    assert len(dataset.episodes) == 10
    groups = dataset.table["group"].to_numpy(str)
    train = set(dataset.indices("train"))
    for draw in dataset.episodes:
        assert len(set(groups[draw])) == len(draw)
        assert set(draw) <= train


def test_workers_and_file_order_and_a_second_time_give_the_same_digests(own_source: Path, tmp_path: Path) -> None:
    reference = digests(prepared(own_source, tmp_path / "one"))
    assert digests(prepared(own_source, tmp_path / "two", workers=2)) == reference
    assert digests(prepared(own_source, tmp_path / "one")) == reference
    copy = tmp_path / "copy"
    for folder in sorted(own_source.iterdir()):
        for file in sorted(folder.rglob("*.png"), reverse=True):  # another order of creation on disk
            (copy / file.relative_to(own_source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy / file.relative_to(own_source))
    assert digests(prepared(copy, tmp_path / "three")) == reference


def test_a_damaged_image_is_quarantined_with_a_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=3, masks=False)
    bad = tmp_path / "ward" / "normal" / "case03.png"
    bad.write_bytes(bad.read_bytes()[:100])
    report = prepared(tmp_path / "ward", tmp_path / "out")[0]
    assert list(report.quarantined) == ["normal/case03"]
    assert report.allowed == []
    assert report.counts == report.wanted == {"train normal": 11, "test normal": 12, "test anomalous": 10}
    written = json.loads(next((tmp_path / "out" / "own").glob("*.report.json")).read_text("utf-8"))
    assert written["quarantined"] == report.quarantined


def test_a_folder_whose_images_can_not_be_read_is_spoken_of_as_the_users_own(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=3, masks=False, normal=3, anomalous=2)
    for path in (tmp_path / "ward" / "anomalous").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(CurationError) as refusal:
        prepared(tmp_path / "ward", tmp_path / "out")
    text = str(refusal.value)
    assert "your folder 'ward' holds 3 image(s) of 3 group(s) that are normal and 0 image(s) of 0 group(s)" in text
    assert "2 more can't be read, first case03.png" in text
    assert not any(words in text for words in ("medfsad datasets", "omplete the download", "--allow", "benchmark"))


def test_a_file_with_a_fault_that_was_allowed_says_so_in_name_and_attributes(tmp_path: Path) -> None:
    """Here the same picture under both labels, of which only one takes part, as both are of one group."""
    write_own_folder(tmp_path / "ward", seed=3, masks=False)
    shutil.copy(tmp_path / "ward" / "normal" / "case03.png", tmp_path / "ward" / "anomalous" / "copy.png")
    with pytest.raises(CurationError, match="normal/case03 ~ anomalous/copy: the same picture under both labels"):
        prepared(tmp_path / "ward", tmp_path / "out")
    report = prepared(tmp_path / "ward", tmp_path / "out", allow=frozenset({"both-labels"}))[0]
    assert "both-labels" in Path(report.path).name
    assert json.loads(Dataset(Path(report.path)).attributes["allowed"]) == ["both-labels"]


def test_a_folder_without_a_second_normal_image_is_told_what_it_lacks(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=3, masks=False, normal=1, anomalous=2)
    with pytest.raises(CurationError, match=r"ward: all 1 normal images are of one group") as caught:
        prepared(tmp_path / "ward", tmp_path / "out")
    assert "medfsad datasets" not in str(caught.value)


def test_a_copy_of_an_image_joins_its_group_and_never_crosses_the_split(tmp_path: Path) -> None:
    """Brightened and mirrored copies, as a data set that was augmented before its release holds them."""
    write_own_folder(tmp_path / "ward", seed=6, masks=False)
    folder = tmp_path / "ward" / "normal"
    for number in range(6):
        with Image.open(folder / f"case{number:02d}.png") as image:
            pixels = np.asarray(image)
        Image.fromarray(pixels[:, ::-1]).save(folder / f"case{number:02d}-mirrored.png")
        Image.fromarray((pixels * 0.8 + 20).astype(np.uint8)).save(folder / f"case{number:02d}-brighter.png")
    report = prepared(tmp_path / "ward", tmp_path / "out", allow=frozenset({"smaller"}))[0]
    table = Dataset(Path(report.path)).table
    case = table.loc[table["label"] == 0].groupby(table["id"].str[:13])
    assert case["id"].size().max() > 1, "no copy took part, so nothing was tried"
    assert (case["group"].nunique() == 1).all()
    assert (case["split"].nunique() == 1).all()


def test_a_missing_image_changes_the_membership_digest(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=5, masks=False)
    before = digests(prepared(tmp_path / "ward", tmp_path / "a"))
    (tmp_path / "ward" / "anomalous" / "case30.png").unlink()
    assert digests(prepared(tmp_path / "ward", tmp_path / "b"))[0][0] != before[0][0]


def test_any_flipped_byte_of_an_image_is_found(own_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    shutil.copy(own_data / "own" / "ward_b-0.0.0-64px.h5", path)
    with h5py.File(path, "r+") as file:
        file["images"][3, 10, 10, 0] ^= 1
    assert verify_store(path)


def test_an_interrupted_preparation_leaves_no_file_under_its_final_name(
    own_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CurationError, match="No space"):
        prepared(own_source, tmp_path)
    assert not list(tmp_path.rglob("*.h5"))
    monkeypatch.undo()
    assert digests(prepared(own_source, tmp_path)) == digests(prepared(own_source, tmp_path / "other"))


def test_nothing_recognised_is_an_error_that_names_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DownloadError, match="medfsad datasets"):
        prepared(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(own_source: Path, tmp_path: Path) -> None:
    reports = prepared(own_source, tmp_path / "out", dry_run=True)
    assert [report.counts["test anomalous"] for report in reports] == [10, 10]
    assert not list((tmp_path / "out").rglob("*.h5"))


@pytest.mark.shared
@pytest.mark.slow
def test_every_open_set_is_prepared_from_the_real_images(shared: Path, tmp_path: Path) -> None:
    """The committed lists fit the images, no near-duplicate crosses a split, and every file is sound."""
    reports = prepared(shared / "data", tmp_path, benchmark="medfsad-open", workers=2)
    assert sorted(report.name for report in reports) == [
        "brain_tumor", "chest_child", "chest_nih", "histology_lung", "lgg", "odir_dr", "odir_glaucoma",
    ]  # fmt: skip
    for report in reports:
        assert report.counts == report.wanted
        assert report.allowed == []
        assert verify_store(Path(report.path)) == []


REPORT_FIELDS = [
    "name", "benchmark", "source", "path", "wanted", "counts", "groups", "composition", "candidates", "spare",
    "quarantined", "findings", "allowed", "licensed", "membership_digest", "content_digest", "reused",
]  # fmt: skip


def test_a_report_has_the_same_fields_whatever_became_of_the_set(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=3, masks=False)
    dry = prepared(tmp_path / "ward", tmp_path / "out", dry_run=True)[0]
    assert list(asdict(dry)) == REPORT_FIELDS
    assert (dry.path, dry.content_digest, dry.findings) == ("", "", [])
    report = prepared(tmp_path / "ward", tmp_path / "out")[0]
    written = json.loads(next((tmp_path / "out" / "own").glob("*.report.json")).read_text("utf-8"))
    assert list(written) == REPORT_FIELDS
    assert written == asdict(report)
    assert (report.counts, report.groups, report.spare) == (dry.counts, dry.groups, dry.spare)
    assert report.composition == dry.composition
