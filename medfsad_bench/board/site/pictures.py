"""Pictures of the site: a set's contact sheet, and queries with their maps. Small, and part of their page.

A site may end up anywhere, so that only images which may be passed on are shown: of sets whose licence allows it, and
of nobody's own.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from medfsad_bench.manifest import OWN, all_manifests
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.store import Dataset
from medfsad_bench.store.prepared import sets_below
from medfsad_bench.store.sheet import outline

_SHEET_PX, _TILE_PX, _QUALITY = 900, 176, 70
_TRUTH = (0, 255, 255)


@dataclass(frozen=True, slots=True)
class Example:
    """An anomalous query and its map, side by side.

    Attributes:
        kind: `best`, `median` or `worst` of the anomalous queries, by the share of normal ones below.
        above: That share, 0 to 1.
        picture: As the source of an `<img>`.
    """

    kind: str
    above: float
    picture: str


class Pictures:
    """The pictures that can be had.

    Args:
        data: Folder of prepared files, or None.
    """

    def __init__(self, data: Path | None) -> None:
        sets = sets_below(data) if data else []
        self._sets = {(str(of["membership_digest"]), int(of["size_px"])): s for s in sets for of in [s.attributes]}

    def sheet(self, row: Row) -> str:
        """The contact sheet of the row's target, as the source of an `<img>`; empty where there is none to show."""
        dataset = self._dataset(row)
        path = dataset.path.with_suffix(".sheet.png") if dataset else None
        if path is None or not path.is_file():
            return ""
        with Image.open(path) as sheet:
            return _source(sheet.convert("RGB"), _SHEET_PX)

    def examples(self, row: Row, scores: Path | None) -> tuple[Example, ...]:
        """The best, median and worst anomalous query of a run's first draw; none without maps or images."""
        dataset = self._dataset(row)
        folder = RunFolder(scores.parent) if scores else None
        if dataset is None or folder is None or not folder.has_maps(0):
            return ()
        table = folder.scores().query("draw == 0")
        anomalous = table[table["anomalous"]].sort_values("score", ascending=False, kind="stable")
        normal = np.sort(table.loc[~table["anomalous"], "score"].to_numpy(np.float64))
        picked = {"best": 0, "median": len(anomalous) // 2, "worst": len(anomalous) - 1}
        rows = anomalous["index"].to_numpy(np.int64)[list(picked.values())]
        heats = folder.maps(0, rows)
        low, high = float(heats.min()), float(heats.max())
        above = np.searchsorted(normal, anomalous["score"].to_numpy(np.float64)[list(picked.values())]) / len(normal)
        return tuple(
            Example(kind, float(share), _source(_side_by_side(dataset, int(index), (heat - low) / (high - low or 1))))
            for kind, share, index, heat in zip(picked, above, rows, heats, strict=True)
        )

    def _dataset(self, row: Row) -> Dataset | None:
        return self._sets.get((row.membership_digest, row.size_px)) if may_be_shown(row) else None


def may_be_shown(row: Row) -> bool:
    """Whether the images of a row's target may be passed on by the licence that its manifest states."""
    manifest = all_manifests().get(row.target)
    return row.benchmark != OWN and manifest is not None and not manifest.licensed


def _side_by_side(dataset: Dataset, index: int, heat: Float[np.ndarray, "s s"]) -> Image.Image:
    """A query, and the same with its map; the outline of the localisation truth on both."""
    from matplotlib import colormaps

    size = (_TILE_PX, _TILE_PX)
    image = Image.fromarray(dataset.images(np.array([index]))[0]).resize(size, Image.Resampling.LANCZOS)
    shades = Image.fromarray(colormaps["inferno"](heat, bytes=True)[..., :3]).resize(size, Image.Resampling.BILINEAR)
    tiles = [np.array(image), np.array(Image.blend(image, shades, 0.55))]
    mask = dataset.mask(index)
    if mask.any():
        small = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        for tile in tiles:
            tile[outline(small)] = _TRUTH
    gap: UInt8[np.ndarray, "s gap 3"] = np.full((_TILE_PX, 4, 3), 255, np.uint8)
    return Image.fromarray(np.hstack([tiles[0], gap, tiles[1]]))


def _source(picture: Image.Image, width: int = 10_000) -> str:
    """A picture of at most that width as a data address."""
    picture.thumbnail((width, picture.height))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
