"""The audit: every planted fault is found, all at once, and shown as table, JSON and picture."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Silent, write_own_folder
from PIL import Image, ImageDraw
from test_dicom import write as write_dicom

from medfsad_bench.curation.audit import (
    duplicate_findings,
    image_findings,
    label_findings,
    patient_findings,
    shared_findings,
)
from medfsad_bench.curation.duplicates import fingerprint, joined_groups, near_duplicates
from medfsad_bench.curation.split import Candidate
from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.curation.staging import Loaded
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts import RawImage
from medfsad_bench.layouts.folders import chest_child
from medfsad_bench.readers import read_picture
from medfsad_bench.resources import resource_dir

ROOT = Path(__file__).resolve().parent.parent


def prepared(download: Path, out: Path, **options: object) -> list[SetReport]:
    return prepare(download, PrepareOptions(out, **{"size_px": 64, **options}), watcher=Silent())[0]  # type: ignore[arg-type]


def tissue(seed: int, shape: tuple[int, int] = (160, 128)) -> np.ndarray:
    rng = np.random.default_rng([7, seed])
    coarse = Image.fromarray(rng.integers(30, 220, (14, 12), np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def loaded(name: str, seed: int, **fields: object) -> Loaded:
    usual = {"sha256": name, "height": 160, "width": 128, "contrast": 40.0, "levels": 200, "commonest": 0.1}
    return Loaded(name, **{**usual, "prints": fingerprint(tissue(seed)), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["resized", "mirrored", "turned", "brighter", "gamma", "jpeg", "framed"])
def test_an_altered_copy_is_a_near_duplicate(change: str, tmp_path: Path) -> None:
    pixels = tissue(1)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.jpg", quality=40)
    framed = np.zeros((220, 200), np.uint8)
    framed[25:185, 40:168] = pixels
    copies = {
        "resized": np.asarray(image.resize((90, 130))),
        "mirrored": pixels[:, ::-1],
        "turned": np.rot90(pixels),
        "brighter": (pixels * 0.6 + 60).astype(np.uint8),
        "gamma": (255 * (pixels / 255) ** 0.6).astype(np.uint8),
        "jpeg": np.asarray(Image.open(tmp_path / "a.jpg")),
        "framed": framed,
    }
    prints = [fingerprint(pixels), fingerprint(np.ascontiguousarray(copies[change])), fingerprint(tissue(2))]
    assert near_duplicates(prints).tolist() == [[0, 1]]


@pytest.mark.shared
@pytest.mark.slow
def test_the_duplicates_of_the_real_brain_set_are_found(shared: Path) -> None:
    """Against a grouping made by others. Where ours joins more, all pairs that were looked at were turned copies."""
    root = shared / "data" / "brain_tumor"
    with (root / "near_duplicates.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "notumor" in row["file"] or "glioma/Te-gl_00" in row["file"]]
    names, theirs = [row["file"] for row in rows], np.array([int(row["group"]) for row in rows])
    prints = [fingerprint(read_picture(root / name).pixels) for name in names]
    ours = np.unique(joined_groups(names, near_duplicates(prints)), return_inverse=True)[1]
    same = (theirs[:, None] == theirs) & ~np.eye(len(theirs), dtype=bool)
    assert (ours[:, None] == ours)[same].mean() >= 0.90, "of their pairs"
    normal = np.array(["notumor" in name for name in names])
    assert len(set(ours[normal])) <= len(set(theirs[normal])) == 481
    assert not set(ours[normal]) & set(ours[~normal]), "no slice without a tumour is a copy of one with"


@pytest.mark.shared
def test_the_committed_brain_list_has_no_copy_on_both_sides(shared: Path) -> None:
    """By its own groups, and by the grouping made by others."""
    with (resource_dir("data_manifests") / "brain_tumor.ids.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    with (shared / "data" / "brain_tumor" / "near_duplicates.csv").open(newline="") as file:
        theirs = {row["file"].rsplit(".", 1)[0]: row["group"] for row in csv.DictReader(file)}
    for group_of in ({row["id"]: row["group"] for row in listed}, theirs):
        sides = {side: {group_of[row["id"]] for row in listed if row["split"] == side} for side in ("train", "test")}
        assert len(sides["train"]) > 16
        assert not sides["train"] & sides["test"]


@pytest.mark.shared
@pytest.mark.slow
def test_different_patients_are_no_duplicates(shared: Path) -> None:
    """The most alike pair of different children's chest films correlates at 0.755: below the threshold by a margin."""
    content = chest_child(shared / "data" / "chest_xray")
    images = content.images if content else []
    prints = [fingerprint(read_picture(image.path).pixels) for image in images]
    pairs = near_duplicates(prints, min_correlation=0.76)
    assert all(images[i].patient == images[j].patient for i, j in pairs)


def near(images: dict[str, Loaded]) -> np.ndarray:
    return near_duplicates([item.prints for item in images.values()])


def test_groups_are_closed_transitively() -> None:
    pairs = np.array([[0, 1], [1, 2], [4, 5]])
    assert joined_groups(["a", "b", "c", "d", "e", "d"], pairs) == ["a", "a", "a", "d", "d", "d"]


def test_duplicates_across_the_split_stop_and_those_within_a_side_are_noted() -> None:
    candidates = [Candidate(name, name, name == "d") for name in "abcd"]
    images = {"a": loaded("a", 1), "b": loaded("b", 1), "c": loaded("c", 2), "d": loaded("d", 2, sha256="c")}
    split = {"a": "train", "b": "test", "c": "test", "d": "test"}
    by_pair = {f.where: f for f in duplicate_findings(candidates, split, images, near(images))}
    assert by_pair["a ~ b"].stops
    assert "both sides" in by_pair["a ~ b"].what
    assert not by_pair["c ~ d"].stops
    assert "the same file" in by_pair["c ~ d"].what
    assert "different labels" in by_pair["c ~ d"].what
    assert len(by_pair) == 2


def test_the_same_file_is_found_even_where_nothing_can_be_compared() -> None:
    candidates = [Candidate(name, name, False) for name in "ab"]
    blank = np.zeros((32, 32), np.float32)
    images = {name: loaded(name, 1, sha256="same", prints=blank) for name in "ab"}
    assert len(duplicate_findings(candidates, {"a": "train", "b": "test"}, images, near(images))) == 1


def test_images_that_two_sets_share_are_found_and_stop_unless_held_out_together() -> None:
    prints = {f"m{k}": fingerprint(tissue(k)) for k in (1, 2)}
    mirrored = {f"o{k}": fingerprint(tissue(k)[:, ::-1].copy()) for k in (2, 3)}
    findings = shared_findings(prints, "other", mirrored, stops=True)
    assert [(f.fault, f.where, f.stops) for f in findings] == [("shared-images", "m2 ~ other/o2", True)]
    assert shared_findings({"m1": prints["m1"]}, "other", mirrored, stops=True) == []


@pytest.mark.parametrize(
    ("header_ids", "stops"),
    [
        (("DOE 1970", "DOE 1970", "ROE 1980"), [True]),
        (("DOE 1970", "DOE 1970", "DOE 1970"), [False]),  # an ID that all share says nothing
        (("ANONYMOUS", "anonymous", "ROE 1980"), []),
        (("", "", "ROE 1980"), []),
    ],
)
def test_one_patient_on_both_sides_stops_without_the_identity(header_ids: tuple[str, ...], stops: list[bool]) -> None:
    candidates = [Candidate(name, name, False) for name in "abc"]
    images = {name: loaded(name, k, header_patient=header_ids[k]) for k, name in enumerate("abc")}
    findings = patient_findings(candidates, {"a": "train", "b": "test", "c": "test"}, images)
    assert [(f.fault, f.stops) for f in findings] == [("one-patient", stop) for stop in stops]
    assert not any("DOE" in f.what + f.where for f in findings)


@pytest.mark.parametrize("patients", [("n", "a"), ("one", "one")])
@pytest.mark.parametrize("altered", [False, True])
def test_a_picture_under_both_labels_stops_and_neighbours_of_one_patient_do_not(
    patients: tuple[str, str], altered: bool
) -> None:
    """Even where both stand in one group, as near-duplicates are joined, and only one of them takes part."""
    candidates = [Candidate("n", "g", False), Candidate("a", "g", True)]
    sources = {i: RawImage(i, Path(f"{i}.png"), "", patient) for i, patient in zip("na", patients, strict=True)}
    images = {"n": loaded("n", 1), "a": loaded("a", 1)}
    if altered:
        images["a"] = loaded("a", 1, prints=fingerprint(np.clip(tissue(1) * 0.8 + 20, 0, 255).astype(np.uint8)))
    findings = label_findings(candidates, sources, images, near(images), stops=True)
    expected = [] if altered and patients[0] == patients[1] else [("both-labels", "n ~ a", True)]
    assert [(f.fault, f.where, f.stops) for f in findings] == expected


@pytest.mark.parametrize(
    ("fields", "anomalous", "fault"),
    [
        ({"commonest": 0.999}, False, "empty-image"),
        ({"commonest": 0.9, "levels": 6}, False, "text-only"),
        ({"height": 30, "width": 30}, False, "odd-size"),
        ({"height": 900, "width": 128}, False, "odd-size"),
        ({"mask_area": 0.0}, True, "empty-mask"),
        ({}, True, "no-mask"),
        ({"mask_area": 0.99}, True, "full-mask"),
        ({"mask_area": 0.1}, False, "label-contradicts-mask"),
        ({"privacy": ("PatientName",)}, False, "personal-data"),
    ],
)
def test_each_fault_of_an_image_is_named(fields: dict[str, object], anomalous: bool, fault: str) -> None:
    candidates = [Candidate("a", "a", anomalous), *(Candidate(f"n{k}", f"n{k}", False) for k in range(5))]
    images = {"a": loaded("a", 1, **fields)} | {f"n{k}": loaded(f"n{k}", k) for k in range(5)}
    split = dict.fromkeys(images, "test")
    assert [(f.fault, f.where) for f in image_findings(candidates, split, images, "voxel")] == [(fault, "a")]


def test_a_page_of_text_is_told_from_an_image(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=12, masks=False, normal=6, anomalous=3)
    page = Image.new("1", (80, 96), 1)
    for line in range(4):
        ImageDraw.Draw(page).text((5, 5 + 22 * line), "no findings", fill=0)
    page.convert("L").resize((800, 960), Image.Resampling.NEAREST).save(tmp_path / "ward" / "anomalous" / "case08.png")
    report = prepared(tmp_path / "ward", tmp_path / "out", size_px=480)[0]
    assert [f["where"] for f in report.findings if f["fault"] == "text-only"] == ["anomalous/case08"]


def test_all_faults_that_stop_a_set_are_listed_and_shown_at_once(tmp_path: Path) -> None:
    """As in BMAD's form, whose split is kept: two copies across it, and both are in message, JSON and picture."""
    root = tmp_path / "set"
    for name, seeds in {"train/good": range(8), "test/good": (0, 1, 20, 21), "test/Ungood": (30, 31)}.items():
        (root / name).mkdir(parents=True)
        for seed in seeds:
            Image.fromarray(tissue(seed)).save(root / name / f"{name[:2]}{seed}.png")
    with pytest.raises(CurationError, match=r"2 fault\(s\) of kind near-duplicates") as caught:
        prepared(root, tmp_path / "out")
    assert "--allow near-duplicates" in str(caught.value)
    listed = json.loads((tmp_path / "out" / "own" / "set.stopped.json").read_text("utf-8"))["findings"]
    assert [f["where"] for f in listed if f["stops"]] == [f"train/good/tr{k} ~ test/good/te{k}" for k in (0, 1)]
    with Image.open(tmp_path / "out" / "own" / "set.stopped.png") as sheet:
        assert sheet.width > 300
    assert not list((tmp_path / "out").rglob("*.h5"))
    report = prepared(root, tmp_path / "out", allow=frozenset({"near-duplicates"}))[0]
    assert "near-duplicates" in Path(report.path).name
    assert not list((tmp_path / "out").rglob("*.stopped.*"))
    assert list((tmp_path / "out").rglob("*.findings.png"))


def test_personal_data_of_dicom_headers_is_reported_once_per_tag(tmp_path: Path) -> None:
    for label, count in (("normal", 6), ("anomalous", 2)):
        (tmp_path / "ward" / label).mkdir(parents=True)
        for number in range(count):
            stored = (tissue(number + 10 * count).astype(np.uint16) * 16).copy()
            path = tmp_path / "ward" / label / f"{number}.dcm"
            write_dicom(path, stored, PatientID=f"{label}{number}", PatientName="Doe^Jane", BurnedInAnnotation="YES")
    report = prepared(tmp_path / "ward", tmp_path / "out")[0]
    texts = [f["what"] for f in report.findings if f["fault"] == "personal-data"]
    assert [text.split(". ")[0] for text in texts] == [
        "8 of 8 headers: PatientName", "8 of 8 headers: burned-in text (BurnedInAnnotation)"
    ]  # fmt: skip
    assert "Jane" not in json.dumps(report.findings)


def test_a_mask_that_does_not_fit_its_image_and_a_box_beyond_it_are_quarantined(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=3, masks=True)
    Image.new("L", (40, 40), 255).save(tmp_path / "ward" / "masks" / "case25.png")
    report = prepared(tmp_path / "ward", tmp_path / "out", allow=frozenset({"smaller"}))[0]
    assert "the mask is 40 × 40 px, its image 80 × 96" in report.quarantined["anomalous/case25"]
