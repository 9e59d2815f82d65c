"""Sets as others have curated them: MedIAnomaly-Data (`images/` and `data.json`) and BMAD (`train/valid/test` folders).

Their splits are kept as they are, so that old numbers can be scored again.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.finding import Content, Finding, within
from medfsad_bench.layouts.masks import Located, match_masks
from medfsad_bench.layouts.raw import RASTER_SUFFIXES, RawImage, Side, files_below, rasters, relative_id

_ANOMALOUS = {"rsna": "Lung Opacity", "lag": "suspicious_glaucoma", "his": "Ungood"}
_NORMAL = {"rsna": "Normal", "lag": "non_glaucoma", "his": "good", "brain_tumor": "notumor"}
_SLIDE = re.compile(r"^(?:\w*?)((?:normal|tumor|test)_\d{3})_(\d+)_(\d+)$", re.IGNORECASE)
_NAMES = {  # by which the files of a set are told
    "rsna": re.compile(r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"),
    "his": _SLIDE,
    "brain_tumor": re.compile(r"^T[er]-(no|gl|me|pi)(Tr)?_\d+$"),
    "lag": re.compile(r"^\d{4}$"),
}


def medianomaly(name: str) -> Callable[[Path], Content | None]:
    """The layout of one of our sets in MedIAnomaly-Data, told by its file names; `other` takes any further set."""

    def layout(root: Path) -> Content | None:
        listed = _listed(root)
        if listed is None or _set_name([Path(file).stem for _, _, file in listed]) != name:
            return None
        files = _Files(root)
        images = [_image(name, files, file, anomalous, side) for side, anomalous, file in listed]
        if name == "other":
            images = [image for image in images if image.split]
        return Content(images, tuple(files.doubts))

    return layout


def bmad(root: Path) -> Content | None:
    """BMAD: `train/good`, `{valid,test}/{good,Ungood}`, each with or without `img`, and masks in `label`.

    What BMAD calls `valid` is part of the test here. Camelyon16 is a layout of its own.
    """
    listed = _bmad_files(root)
    masks, findings = dict[Path, tuple[Path, ...]](), []
    for side in ("valid", "test"):
        folder = root / side / "Ungood" / "label"
        lesions = [
            Located(path, path.parent, "anomalous") for of, label, path in listed if (of, label) == (side, "Ungood")
        ]
        of_side, doubts = match_masks(lesions, [Located(path, folder, "anomalous") for path in rasters(folder)], root)
        masks |= of_side
        findings += doubts
    images = []
    for side, label, path in listed:
        name, kind = relative_id(path, root), "normal" if label == "good" else "anomalous"
        split: Side = "train" if side == "train" else "test"
        of_image = masks.get(path, ())
        images.append(RawImage(name, path, kind, patient=name, disease=kind, split=split, masks=of_image))
    return Content(images, tuple(findings))


def camelyon_patches(root: Path) -> Content | None:
    """Camelyon16 patches as BMAD distributes them.

    The slide is the first part of the name (`normal_001_62656_108672`: slide, x, y). `normal_*` slides are for
    training, `test_*` slides for testing.
    """
    files = _bmad_files(root)
    if not any(_slide_of(path.stem) for side, _, path in files if side == "train"):
        return None  # another set in BMAD's form
    images = []
    for side, label, path in files:
        slide, disease = _slide_of(path.stem), "metastasis" if label == "Ungood" else ""
        split: Side = "test" if slide.startswith("test_") or (not slide and side != "train") else "train"
        patient = slide or relative_id(path, root)
        images.append(RawImage(path.stem, path, label, patient=patient, disease=disease, split=split))
    return Content(images)


def _listed(root: Path) -> list[tuple[Side, bool, str]] | None:
    """(side, anomalous, file name) of all that `data.json` names; its `unlabeled` part has labels and no side."""
    path = root / "data.json"
    if not path.is_file():
        return None
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        unlabelled = content["train"].get("unlabeled", {})
        parts: list[tuple[Side, str, Any]] = [("train", "0", content["train"])]
        parts += [("test", label, content["test"]) for label in ("0", "1")]
        parts += [("", label, unlabelled) for label in ("0", "1")]
        return [(side, label == "1", str(file)) for side, label, part in parts for file in part.get(label, [])]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DownloadError(
            f"{path}: isn't the list of a MedIAnomaly set ({error!r}). Expected {{'train': {{'0': […]}}, 'test': "
            "{'0': […], '1': […]}}; download it again."
        ) from error


def _set_name(stems: list[str]) -> str:
    names = (name for name, pattern in _NAMES.items() if stems and all(map(pattern.match, stems)))
    return next(names, "other")


class _Files:
    """Files by their path below `images/` or the root; by their name alone where that is enough to tell them."""

    def __init__(self, root: Path) -> None:
        base = root / "images" if (root / "images").is_dir() else root
        files = [path for path in files_below(base) if path.suffix.lower() in RASTER_SUFFIXES]
        self.doubts: list[Finding] = []  # names that stand for several files
        self._by_path = {path.relative_to(base).as_posix(): path for path in files}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            self._by_name[path.name].append(path)
        self._root = root

    def path(self, file: str) -> Path:
        """The file that a list means; where there's none, the path that it would have."""
        name = Path(file).name
        alike = [self._by_path[file]] if file in self._by_path else self._by_name.get(name, [])
        if len(alike) > 1:
            what = f"{len(alike)} files bear this name ({within(alike[0], self._root)} is taken). Keep the one meant"
            self.doubts.append(Finding("two-files", file, what, stops=True))
        return alike[0] if alike else self._root / "images" / name


def _image(name: str, files: _Files, file: str, anomalous: bool, side: Side) -> RawImage:
    path = files.path(file)
    label, patient = _label(name, path.stem, anomalous), _slide_of(path.stem) or path.stem
    return RawImage(path.stem, path, label, patient=patient, disease=label if anomalous else "", split=side)


def _label(name: str, file: str, anomalous: bool) -> str:
    if not anomalous:
        return _NORMAL.get(name, "normal")
    if name == "brain_tumor":
        return "glioma" if "-gl" in file else "meningioma"
    return _ANOMALOUS.get(name, "anomalous")


def _bmad_files(root: Path) -> list[tuple[str, str, Path]]:
    """Side, label and path of the images in BMAD's form; empty if the folder isn't of it."""
    if not (root / "train" / "good").is_dir() or not (root / "test" / "Ungood").is_dir():
        return []
    folders = [("train", "good"), *((side, label) for side in ("valid", "test") for label in ("good", "Ungood"))]
    return [
        (side, label, path)
        for side, label in folders
        for path in rasters(root / side / label / "img") or rasters(root / side / label)
    ]


def _slide_of(name: str) -> str:
    """The slide in a patch's name, in lower case; empty if there's none.

    >>> _slide_of("normal_001_62656_108672")
    'normal_001'
    """
    match = _SLIDE.match(name)
    return match[1].lower() if match else ""
