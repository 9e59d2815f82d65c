"""A mask belongs to the image whose folders and name it bears; a doubt stops, and what belongs to nobody is named."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Silent
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_dicom import write as write_dicom
from test_own_tables import content
from test_own_tables import touch as touch_all

from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts.masks import Located, masks_beside, match_masks
from medfsad_bench.layouts.own import class_images
from medfsad_bench.store import Dataset

ROOT = Path("/data/ward")
MASK_CASES = [
    "mask_same_name_in_patient_folders",
    "mask_suffix",
    "mask_two_files_per_image",
    "masks_beside_anomalous",
    "dicom_masks_cbis",
]


def touch(root: Path, *names: str) -> Path:
    return touch_all(root, "normal/n.png", "anomalous/other.png", *names)


def masks_of(root: Path) -> dict[str, list[str]]:
    """Names of masks by image, of those images that have any."""
    images = content(root).images
    return {i.id: [m.relative_to(root).as_posix() for m in i.masks] for i in images if i.masks}


def faults(root: Path) -> dict[str, bool]:
    return {finding.fault: finding.stops for finding in content(root).findings}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("anomalous/a0.png", "masks/a0.png"),
        ("anomalous/a0.png", "masks/a0_mask.png"),
        ("anomalous/a0.png", "masks/a0-mask.tif"),
        ("anomalous/a0.png", "masks/A0_Segmentation.PNG"),
        ("anomalous/a0.png", "Masks/a0_seg_2.png"),
        ("anomalous/a0.jpg", "ground_truth/a0_GT.bmp"),
        ("anomalous/a0.png", "masks/mask_a0.png"),
        ("anomalous/a0.png", "masks/a0 (1).png"),
        ("anomalous/a0.png", "masks/anomalous/a0_mask.png"),
        ("anomalous/img007.png", "masks/mask007.png"),
        ("anomalous/case_0000.png", "labels/case.png"),
        ("anomalous/q1/slice_01.png", "masks/q1/slice_01.png"),
        ("anomalous/q1/images/s.png", "anomalous/q1/masks/s.png"),
        ("anomalous/q1/image.png", "anomalous/q1/mask.png"),
        ("anomalous/siteA/q1/s.png", "masks/q1/s_mask.png"),
        ("anomalous/q1/s.png", "masks/s.png"),
        ("anomalous/malignant (1).png", "anomalous/malignant (1)_mask.png"),
        ("anomalous/Mu\u0308ller.png", "masks/m\u00fcller_mask.png"),
        ("anomalous/a0.dcm", "masks/a0.dcm"),
        ("anomalous/1.2.840.7", "masks/1.2.840.7.png"),
    ],
)
def test_forms_in_which_people_name_masks(tmp_path: Path, image: str, mask: str) -> None:
    root = touch(tmp_path, mask, *([image] if not image.endswith("840.7") else []))
    if image.endswith("840.7"):
        write_dicom(root / image, np.ones((8, 8), np.uint16), PatientID="p")
    ((image_id, masks),) = masks_of(root).items()
    assert image.startswith(image_id)
    assert masks == [mask]
    assert "masks" not in faults(root)


def test_each_image_gets_its_own_mask_where_names_repeat_in_every_folder(tmp_path: Path) -> None:
    names = [f"q{k}/slice_{s:02d}.png" for k in range(4) for s in range(3)]
    root = touch(tmp_path, *(f"{folder}/{name}" for folder in ("anomalous", "masks") for name in names))
    assert masks_of(root) == {f"anomalous/{name[:-4]}": [f"masks/{name}"] for name in names}


def test_several_masks_of_one_image_are_all_its_own_and_an_image_of_that_name_comes_first(tmp_path: Path) -> None:
    root = touch(tmp_path, "anomalous/a.png", "anomalous/b.png", "anomalous/b_1.png", "masks/b.png", "masks/b_1.png")
    touch(root, "masks/a_mask.png", "masks/a_mask_1.png", "masks/a_mask_2.png")
    assert masks_of(root) == {
        "anomalous/a": [f"masks/a_mask{n}.png" for n in ("", "_1", "_2")],
        "anomalous/b": ["masks/b.png"],
        "anomalous/b_1": ["masks/b_1.png"],
    }


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (("anomalous/q1/s.png", "anomalous/q2/s.png", "masks/s.png"), "masks/s.png"),
        (("anomalous/a.png", "masks/a_mask.png", "masks/a_seg.png"), "anomalous/a.png"),
        (("anomalous/a.png", "masks/a.png", "masks/a.tif"), "anomalous/a.png"),
        (("anomalous/a.png", "masks/reader1/a.png", "masks/reader2/a.png"), "anomalous/a.png"),
        (("anomalous/A.png", "anomalous/a.png", "masks/a_mask.png", "masks/x/A_MASK.png"), ""),
        (("anomalous/a.png", "masks/b.png", "masks/c.png"), "masks/b.png and 1 more"),
        (("anomalous/q1/s.png", "masks/q9/s.png"), "masks/q9/s.png"),
    ],
)
def test_a_doubt_about_a_mask_stops_and_nobody_gets_it(tmp_path: Path, names: tuple[str, ...], where: str) -> None:
    root = touch(tmp_path, *names)
    stopping = [finding.where for finding in content(root).findings if finding.stops]
    if where:
        assert stopping == [where]
        assert masks_of(root) == {}
    else:  # exact case decides
        assert masks_of(root) == {"anomalous/a": ["masks/a_mask.png"], "anomalous/A": ["masks/x/A_MASK.png"]}


def test_a_mask_without_its_image_is_named_and_stops_nothing_where_others_have_theirs(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "anomalous/a.png", "masks/a.png", "masks/z.png", "anomalous/y_mask.png", "anomalous/a_mask.txt"
    )
    findings = {finding.fault: (finding.where, finding.stops) for finding in content(root).findings}
    assert findings["unused-masks"] == ("masks/z.png", False)
    assert findings["unused-files"] == ("anomalous/a_mask.txt", False)
    assert "anomalous/y_mask" in {image.id for image in content(root).images}, "no file says that it's a mask"


def test_masks_beside_images_are_no_images_with_or_without_their_own(tmp_path: Path) -> None:
    root = touch(
        tmp_path, *(f"{c}/{c} ({k}){m}.png" for c in ("normal", "anomalous") for k in (1, 2) for m in ("", "_mask"))
    )
    (root / "anomalous" / "anomalous (2).png").unlink()
    assert [image.id for image in content(root).images] == [
        *("normal/n", "normal/normal (1)", "normal/normal (2)", "anomalous/anomalous (1)", "anomalous/other"),
    ]
    assert faults(root) == {"unused-masks": False}


@given(st.lists(st.text("ab01_- ", min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
def test_a_mask_of_an_images_own_path_is_its_own_whatever_the_names(names: list[str]) -> None:
    images = [Located(ROOT / "anomalous" / f"{name}.png", ROOT / "anomalous", "anomalous") for name in names]
    masks = [Located(ROOT / "masks" / f"{name}.png", ROOT / "masks", "") for name in names]
    matched, findings = match_masks(images, masks, ROOT)
    assert findings == []
    assert {image.stem: [m.stem for m in of_image] for image, of_image in matched.items()} == {n: [n] for n in names}


@given(st.lists(st.text("abm_ask01", min_size=1, max_size=8), unique=True, max_size=8))
def test_only_files_with_a_word_for_masks_are_taken_for_masks(names: list[str]) -> None:
    files = [ROOT / f"{name}.png" for name in names]
    assert all("mask" in path.stem or "msk" in path.stem for path in masks_beside(files, ROOT))


def prepared(download: Path, out: Path, **options: object) -> SetReport:
    return prepare(download, PrepareOptions(out, **{"size_px": 96, **options}), watcher=Silent())[0][0]  # type: ignore[arg-type]


def pictures(root: Path, frames: int = 1) -> Path:
    """Eight normal and four anomalous DICOM files of several frames, 40 × 40, with an 8 × 8 lesion that moves."""
    rng = np.random.default_rng(3)
    for label, count in (("normal", 8), ("anomalous", 4)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(200, 3000, (frames, 8, 8)).astype(np.uint16)
            write_dicom(root / label / f"{label[0]}{number}", np.kron(coarse, np.ones((5, 5), np.uint16)).squeeze())
    return root


def test_frames_are_paired_with_the_pages_of_their_mask_and_one_page_for_all_is_refused(tmp_path: Path) -> None:
    root = pictures(tmp_path / "ward", frames=3)
    (root / "masks").mkdir()
    for number in range(4):
        pages = [Image.new("L", (40, 40)) for _ in range(3)]
        for page, image in enumerate(pages):
            image.paste(255, (8 * page, 0, 8 * page + 8, 4 * (page + 1)))
        pages[0].save(root / "masks" / f"a{number}_mask.tif", save_all=True, append_images=pages[1:])
    dataset = Dataset(Path(prepared(root, tmp_path / "out").path))
    areas = {i: int(dataset.mask(k).sum()) for k, i in enumerate(dataset.table["id"]) if dataset.has_mask()[k]}
    assert set(areas) <= {f"anomalous/a{k}#{frame:04d}" for k in range(4) for frame in range(3)}
    assert all(area == 8 * 4 * (int(image_id[-1]) + 1) for image_id, area in areas.items())
    pages[0].save(root / "masks" / "a3_mask.tif")
    with pytest.raises(CurationError, match=r"anomalous/a3: the image has 3 frame\(s\), its mask .*a3_mask.tif has 1"):
        prepared(root, tmp_path / "out")


def test_two_masks_are_united_in_the_prepared_file(tmp_path: Path) -> None:
    root = pictures(tmp_path / "ward")
    (root / "masks").mkdir()
    for number in range(4):
        for part, box in (("", (0, 0, 8, 8)), ("_1", (20, 20, 24, 30))):
            image = Image.new("L", (40, 40))
            image.paste(255, box)
            image.save(root / "masks" / f"a{number}{part}.png")
    dataset = Dataset(Path(prepared(root, tmp_path / "out").path))
    assert {int(dataset.mask(k).sum()) for k in np.flatnonzero(dataset.has_mask()).tolist()} == {64 + 40}


def test_folders_named_by_arguments_need_no_names_of_ours(tmp_path: Path) -> None:
    touch(tmp_path, "a/Gesund/x/1.png", "b/Krank/1.png", "c/Masken/1_mask.png")
    folders = {"normal": tmp_path / "a/Gesund", "anomalous": tmp_path / "b/Krank"}
    images = class_images(folders, tmp_path / "c/Masken").images
    assert {image.id: [mask.name for mask in image.masks] for image in images} == {
        "normal/x/1": [], "anomalous/1": ["1_mask.png"],
    }  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", MASK_CASES)
def test_cases_that_once_lost_or_swapped_masks(shared: Path, tmp_path: Path, name: str) -> None:
    report = prepared(shared / "cases" / name, tmp_path)
    dataset = Dataset(Path(report.path))
    assert report.counts == {"train normal": 8, "test normal": 8, "test anomalous": 8}
    assert dataset.has_mask().sum() == 8
    areas = {int(dataset.mask(k).sum()) for k in np.flatnonzero(dataset.has_mask()).tolist()}
    assert areas == {268 if name == "mask_two_files_per_image" else 168}


@pytest.mark.shared
def test_a_flat_mask_for_many_frames_is_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CurationError, match=r"a0: the image has 4 frame\(s\), its mask masks/a0.png has 1"):
        prepared(shared / "cases" / "dicom_multiframe_2d_mask", tmp_path)
