"""Sets as others have curated them: MedIAnomaly-Data (`images/` and `data.json`) and BMAD (`train/valid/test` folders).

Their splits are kept as they are, so that old numbers can be scored again.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.histology import bmad_files, slide_of
from medfsad_bench.layouts.raw import RASTER_SUFFIXES, RawImage, files_below, rasters, relative_id

_ANOMALOUS = {"rsna": "Lung Opacity", "lag": "suspicious_glaucoma", "his": "Ungood"}
_NORMAL = {"rsna": "Normal", "lag": "non_glaucoma", "his": "good", "brain_tumor": "notumor"}
_RSNA_NAME = re.compile(r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$")
_BRAIN_NAME = re.compile(r"^T[er]-(no|gl|me|pi)(Tr)?_\d+$")
_LAG_NAME = re.compile(r"^\d{4}$")


def medianomaly(name: str) -> Callable[[Path], list[RawImage] | None]:
    """The layout of one of our sets in MedIAnomaly-Data, told by its file names; `other` takes any further set."""

    def layout(root: Path) -> list[RawImage] | None:
        listed = _listed(root)
        if listed is None or _set_name(listed) != name:
            return None
        files = _files(root)
        images = [_image(name, files, root, file, anomalous, side) for side, anomalous, file in listed]
        return images if name != "other" else [image for image in images if image.split]

    return layout


def bmad(root: Path) -> list[RawImage] | None:
    """BMAD: `train/good`, `{valid,test}/{good,Ungood}`, each with or without `img`, and masks in `label`.

    What BMAD calls `valid` is part of the test here. Camelyon16 is a layout of its own.
    """
    masks = {(s, path.stem): path for s in ("valid", "test") for path in rasters(root / s / "Ungood" / "label")}
    images = []
    for side, label, path in bmad_files(root):
        name, kind = relative_id(path, root), "normal" if label == "good" else "anomalous"
        images.append(
            RawImage(
                id=name,
                path=path,
                label=kind,
                patient=name,
                disease=kind,
                split="train" if side == "train" else "test",
                mask=masks.get((side, path.stem)) if kind == "anomalous" else None,
            )
        )
    return images


def _listed(root: Path) -> list[tuple[str, bool, str]] | None:
    """(side, anomalous, file name) of all that `data.json` names; its `unlabeled` part has labels and no side."""
    path = root / "data.json"
    if not path.is_file():
        return None
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        unlabelled = content["train"].get("unlabeled", {})
        parts = [("train", "0", content["train"]), ("test", "0", content["test"]), ("test", "1", content["test"])]
        parts += [("", label, unlabelled) for label in ("0", "1")]
        return [(side, label == "1", str(file)) for side, label, part in parts for file in part.get(label, [])]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DownloadError(
            f"{path}: isn't the list of a MedIAnomaly set ({error!r}). Expected {{'train': {{'0': […]}}, 'test': "
            "{'0': […], '1': […]}}; download it again."
        ) from error


def _set_name(listed: list[tuple[str, bool, str]]) -> str:
    stems = [Path(file).stem for _, _, file in listed]
    if not stems:
        return "other"
    tests: dict[str, Callable[[str], Any]] = {
        "rsna": _RSNA_NAME.match,
        "his": slide_of,
        "brain_tumor": _BRAIN_NAME.match,
        "lag": _LAG_NAME.match,
    }
    return next((name for name, test in tests.items() if all(test(stem) for stem in stems)), "other")


def _files(root: Path) -> dict[str, Path]:
    """Files by their path below `images/` or the root, and by their name alone."""
    base = root / "images" if (root / "images").is_dir() else root
    files: dict[str, Path] = {}
    for path in files_below(base):
        if path.suffix.lower() in RASTER_SUFFIXES:
            files[path.relative_to(base).as_posix()] = path
            files.setdefault(path.name, path)
    return files


def _image(name: str, files: dict[str, Path], root: Path, file: str, anomalous: bool, side: str) -> RawImage:
    path = files.get(file) or files.get(Path(file).name) or root / "images" / Path(file).name
    label = _label(name, path.stem, anomalous)
    return RawImage(
        id=path.stem,
        path=path,
        label=label,
        patient=slide_of(path.stem) or path.stem,
        disease=label if anomalous else "",
        split=side,  # type: ignore[arg-type]  # one of the three, by construction
    )


def _label(name: str, file: str, anomalous: bool) -> str:
    if not anomalous:
        return _NORMAL.get(name, "normal")
    if name == "brain_tumor":
        return "glioma" if "-gl" in file else "meningioma"
    return _ANOMALOUS.get(name, "anomalous")
