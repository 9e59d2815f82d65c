"""Whole slides of Camelyon16: patches at stated coordinates of level 0, polygons of the annotations as masks."""

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.finding import Content, first_files
from medfsad_bench.layouts.raw import RawImage, files_below
from medfsad_bench.manifest import slide_coordinates

PATCH_PX = 256  # at level 0, which is 40x: 0.23 to 0.25 µm per pixel
_NAME = re.compile(r"^(normal|tumor|test)_\d{3}$", re.IGNORECASE)

Polygon = list[tuple[float, float]]


def camelyon_slides(root: Path) -> Content | None:
    """`normal_001.tif`, `test_001.tif`, … at any depth, and annotations `test_001.xml` beside or below.

    The patches are those of the committed coordinates; of a slide that isn't there nothing is asked for. Two files of
    one name are a finding; it stops where they are annotations, as one of them would be a wrong mask.
    """
    files = files_below(root)
    tiffs = (path for path in files if path.suffix.lower() == ".tif" and _NAME.match(path.stem))
    slides, copies = first_files(tiffs, _lower_stem, root, stops=False)
    if not slides:
        return None
    annotations = (path for path in files if path.suffix.lower() == ".xml" and _lower_stem(path) in slides)
    outlines, doubts = first_files(annotations, _lower_stem, root, stops=True)
    images = [
        RawImage(
            id=f"{slide}_{x}_{y}",
            path=slides[slide],
            label=label,
            patient=slide,
            disease="metastasis" if label == "Ungood" else "",
            split="train" if slide.startswith(("normal_", "tumor_")) else "test",
            masks=(outlines[slide],) if label == "Ungood" and slide in outlines else (),
            region=(x, y, PATCH_PX),
        )
        for slide, x, y, label in slide_coordinates()
        if slide in slides
    ]
    return Content(images, (*copies, *doubts))


def read_polygons(path: Path) -> tuple[list[Polygon], list[Polygon]]:
    """Polygons of an annotation file in ASAP's form, as (x, y) in pixels of level 0: tumour, and holes in it.

    Holes (groups `_2` and `Exclusion` of Camelyon16) cut normal tissue out of an annotated tumour.

    Raises:
        DownloadError: If it isn't such a file.
    """
    text = path.read_text("utf-8", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # an entity can grow without bounds
        raise DownloadError(f"{path.name}: declares entities. Expected a plain annotation file; download it again.")
    polygons: dict[bool, list[Polygon]] = defaultdict(list)
    try:
        for annotation in ElementTree.fromstring(text).iter("Annotation"):  # noqa: S314 - entities are refused above
            corners = [(float(c.attrib["X"]), float(c.attrib["Y"])) for c in annotation.iter("Coordinate")]
            hole = annotation.attrib.get("PartOfGroup", "") in ("_2", "Exclusion")
            if len(corners) >= 3:
                polygons[hole].append(corners)
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DownloadError(f"{path.name}: no annotation in ASAP's form ({error}). Download it again.") from error
    return polygons[False], polygons[True]


def _lower_stem(path: Path) -> str:
    return path.stem.lower()
