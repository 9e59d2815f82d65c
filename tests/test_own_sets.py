"""A user's own images: told by arguments, named without a clash, refused before the work, never their own source."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from conftest import Silent, write_own_folder
from PIL import Image
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_layouts import picture

from medfsad_bench.curation.stage import OwnImages, PrepareOptions, SetReport, prepare
from medfsad_bench.errors import CurationError, DownloadError, StoreError
from medfsad_bench.layouts import recognise
from medfsad_bench.runner.held_out import held_out_by_content, sources_for
from medfsad_bench.runner.targets import chosen_targets
from medfsad_bench.store import Dataset, verify_store
from medfsad_bench.store.prepared import own_sets


def prepared(folder: Path | None, out: Path, own: OwnImages | None = None, name: str | None = None) -> SetReport:
    options = PrepareOptions(out, size_px=64)
    return prepare(folder, options, watcher=Silent(), own=own, name=name)[0][0]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    write_own_folder(tmp_path / "ward", seed=5, masks=True, normal=12, anomalous=6)
    return tmp_path / "ward"


# --- told by arguments


def test_arguments_names_in_any_case_and_a_table_give_one_membership(ward: Path, tmp_path: Path) -> None:
    expected = prepared(ward, tmp_path / "a")
    for number, (normal, anomalous) in enumerate([("Normal", "ABNORMAL"), ("good", "bad"), ("healthy", "Diseased")]):
        renamed = tmp_path / str(number) / "ward"
        shutil.copytree(ward / "normal", renamed / normal)
        shutil.copytree(ward / "anomalous", renamed / anomalous)
        shutil.copytree(ward / "masks", renamed / "Masks")
        assert prepared(renamed, tmp_path / f"out{number}").content_digest == expected.content_digest
    own = OwnImages(normal=ward / "normal", anomalous=ward / "anomalous", masks=ward / "masks")
    told = prepared(None, tmp_path / "b", own, name="ward")
    assert told.content_digest == expected.content_digest
    assert Dataset(Path(told.path)).has_mask().sum() == 6


def test_folders_in_different_places_are_one_set(ward: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    sick = shutil.move(ward / "anomalous", tmp_path / "far" / "away" / "sick")
    report = prepared(None, tmp_path / "out", OwnImages(normal=ward / "normal", anomalous=Path(sick)), name="mine")
    assert (report.name, report.counts["test anomalous"], report.quarantined) == ("mine", 6, {})


@pytest.mark.parametrize("labels", [["normal=0,Healthy"], ["normal=0, healthy", "anomalous=1,4"]])
def test_columns_and_labels_of_a_table_are_told(ward: Path, tmp_path: Path, labels: list[str]) -> None:
    rows = [f"normal/case{k:02d}.png,{'0' if k % 2 else 'healthy'}" for k in range(12)]
    rows += [f"anomalous/case{k:02d}.png,{1 if k % 2 else 4}" for k in range(12, 18)]
    shutil.rmtree(ward / "masks")
    (ward / "table").mkdir()
    for name in ("normal", "anomalous"):
        shutil.move(ward / name, ward / "table" / name)
    (ward / "table" / "study.csv").write_text("\n".join(["filename,diagnosis", *rows]))
    own = OwnImages(columns=["path=filename", "label=diagnosis"], labels=labels)
    report = prepared(ward / "table", tmp_path / "out", own)
    assert report.counts == {"train normal": 6, "test normal": 6, "test anomalous": 6}


WRONG: list[tuple[Sequence[str], str]] = [
    (("--normal", "ward/normal"), "--anomalous is not given"),
    (("--normal", "ward/normal", "--anomalous", "nowhere"), "nowhere: is not a folder"),
    (("--normal", "ward", "--anomalous", "ward/anomalous"), "lies in --normal"),
    (("--normal", "ward/normal", "--anomalous", "ward/anomalous", "--source", "ward"), "--source doesn't go with"),
    (("--normal", "ward/normal", "--anomalous", "ward/anomalous", "--name", "lgg"), "name of a set of the benchmarks"),
    (("--normal", "ward/normal", "--anomalous", "ward/anomalous", "--name", "My Ward"), "a–z, 0–9 and _"),
    (("--source", "ward", "--column", "file=name"), "expected one of path=…"),
    (("--source", "ward", "--column", "path=name"), "no CSV table in it has the columns name and label"),
    (("--column", "path=name"), "need --source"),
    ((), "--source is not given"),
    (("--source", "flat"), "3 images without labels"),
    (("--source", "only"), "normal/ without a folder of anomalous images"),
    (("--source", "table"), "labels.csv has the columns where, says"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_no_target_gets_the_accepted_forms(
    medfsad: Medfsad,  # noqa: F811
    ward: Path,
    tmp_path: Path,
    arguments: Sequence[str],
    message: str,
) -> None:
    for name in ("flat/a.png", "flat/b.png", "flat/c.png", "only/normal/a.png", "table/a.png"):
        picture(tmp_path / name)
    (tmp_path / "table" / "labels.csv").write_text("where,says\na.png,0\n")
    code, _, err = medfsad("prepare", *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    if "--name" not in arguments and "lies in" not in message and "expected one of" not in message:
        assert "medfsad score" in " ".join(err.split())
    assert not (tmp_path / "medfsad-data").exists()


def test_two_folders_for_one_class_are_refused(tmp_path: Path) -> None:
    for name in ("normal/a.png", "good/b.png", "bad/c.png"):
        picture(tmp_path / "ward" / name)
    with pytest.raises(DownloadError, match="both stand for normal"):
        recognise(tmp_path / "ward")


# --- refused before the work


def test_volumes_without_any_mask_and_normals_of_one_group_are_refused_before_reading(tmp_path: Path) -> None:
    for name in ("normal/a", "normal/b", "anomalous/c"):
        (tmp_path / "mri" / name).parent.mkdir(parents=True, exist_ok=True)
        volume = nib.nifti1.Nifti1Image(np.ones((8, 8, 8), np.int16), np.eye(4))
        nib.save(volume, tmp_path / "mri" / f"{name}.nii")
    with pytest.raises(CurationError, match=r"no mask for any of its 1 anomalous volume\(s\), first c\.nii"):
        prepared(tmp_path / "mri", tmp_path / "out")
    picture(tmp_path / "one" / "normal" / "a.png")
    for number in range(3):
        picture(tmp_path / "one" / "anomalous" / f"{number}.png")
    with pytest.raises(CurationError, match="all 1 normal images are of one group"):
        prepared(tmp_path / "one", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.h5"))


# --- names


def test_two_folders_of_one_name_are_two_sets_and_never_overwritten(tmp_path: Path) -> None:
    for number, site in enumerate(("siteA", "siteB")):
        write_own_folder(tmp_path / "d" / site / "images", seed=number, masks=False, normal=6, anomalous=3)
    reports, _ = prepare(tmp_path / "d", PrepareOptions(tmp_path / "both", size_px=64), watcher=Silent())
    assert [report.name for report in reports] == ["sitea_images", "siteb_images"]
    first = prepared(tmp_path / "d" / "siteA", tmp_path / "out")
    with pytest.raises(CurationError, match="prepared from another folder"):
        prepared(tmp_path / "d" / "siteB", tmp_path / "out")
    assert verify_store(Path(first.path)) == []
    assert prepared(tmp_path / "d" / "siteA", tmp_path / "out").content_digest == first.content_digest
    second = prepared(tmp_path / "d" / "siteB", tmp_path / "out", name="site_b")
    assert (first.name, second.name) == ("images", "site_b")


@pytest.mark.parametrize("damage", ["cut short", "of another schema"])
def test_a_file_that_cant_be_read_stops_with_a_remedy_that_works(ward: Path, tmp_path: Path, damage: str) -> None:
    """It may be another folder's, so nothing is written over it."""
    report = prepared(ward, tmp_path / "out")
    path = Path(report.path)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        with h5py.File(path, "r+") as file:
            file.attrs["schema"] = 0
    with pytest.raises(StoreError, match=r"(?i)remove it and prepare the set again"):
        prepared(ward, tmp_path / "out")
    path.unlink()
    assert prepared(ward, tmp_path / "out").content_digest == report.content_digest


def test_an_own_lgg_is_not_the_benchmarks(ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "lgg"
    shutil.copytree(ward, mine)
    report = prepared(mine, tmp_path / "out")
    assert report.name == "own_lgg"
    theirs = tmp_path / "out" / "medfsad-open" / "lgg-2.0.0-64px.h5"
    theirs.parent.mkdir()
    shutil.copy(report.path, theirs)
    with h5py.File(theirs, "r+") as file:
        file.attrs.update({"name": "lgg", "benchmark": "medfsad-open"})
        del file.attrs["origin"]
    sets, own = [Dataset(theirs)], own_sets(tmp_path / "out")

    def chosen(target: object) -> list[Path]:
        return [dataset.path for dataset in chosen_targets([str(target)], sets, own, tmp_path / "out")]

    assert chosen("lgg") == chosen("all") == chosen(theirs) == chosen("medfsad-open/lgg") == [theirs]
    assert chosen("own_lgg") == chosen(mine) == chosen("own/own_lgg") == chosen(report.path) == [Path(report.path)]
    monkeypatch.chdir(tmp_path)  # where `lgg` is a set's name and the own folder's path
    with pytest.raises(StoreError, match="own/own_lgg or medfsad-open/lgg"):
        chosen("lgg")
    with pytest.raises(StoreError, match="prepare it with"):
        chosen(ward)


# --- shared images


def altered_copy(folder: Path, target: Path) -> None:
    """The same pictures, mirrored and in another format: no byte of a file is the same."""
    for path in folder.rglob("*.png"):
        copy = target / path.relative_to(folder).with_suffix(".bmp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)


@pytest.mark.parametrize("copy", ["same files", "altered"])
def test_sets_that_share_images_never_train_each_other(ward: Path, tmp_path: Path, copy: str) -> None:
    (shutil.copytree if copy == "same files" else altered_copy)(ward, tmp_path / "csv2")
    write_own_folder(tmp_path / "other", seed=77, masks=False, normal=6, anomalous=3)
    for name in ("ward", "csv2", "other"):
        report = prepared(tmp_path / name, tmp_path / "out")
        assert ("shared-images" in {f["fault"] for f in report.findings}) == (name == "csv2")
    sets = {dataset.name: dataset for dataset in own_sets(tmp_path / "out")}
    for name, partner in (("ward", "csv2"), ("csv2", "ward")):
        assert held_out_by_content(sets[name], list(sets.values())) == [partner]
        assert [source.name for source in sources_for(sets[name], list(sets.values()), "dataset")] == ["other"]


def test_run_says_what_it_holds_out_together(medfsad: Medfsad, ward: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(ward, tmp_path / "csv2")
    for name in ("ward", "csv2"):
        assert medfsad("prepare", "--source", name, "--size", 64)[0] == 0
    code, out, err = medfsad("run", "chance", "--shots", 2, "--draws", 2, "--target", tmp_path / "ward", "--json")
    assert code == 0
    assert "ward: held out together with csv2, as they share images" in " ".join(err.split())
    assert json.loads(out)[0]["target"] == "ward"
    assert "csv2" not in json.loads(out)[0]["sources"]
