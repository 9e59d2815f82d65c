"""A run to look at: queries beside the support images with their weights, and the anomaly map."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from medfsad_bench.episodes import Episodes
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import whole
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.store import Dataset
from medfsad_bench.store.sheet import outline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EACH = 2  # queries of each kind, if none are named
_ID_WIDTH = 26  # characters of an id that stand over one image: the rest goes on in the next line


@dataclass(frozen=True, slots=True)
class PictureLine:
    """One line of the picture.

    Attributes:
        title: What the query is and how it scored.
        image: The query.
        truth: Outline of its localisation truth at the image's size, or None.
        heat: Its smoothed map, or None where none was kept.
        weights: How much each support counted, or None where the method doesn't tell.
    """

    title: str
    image: UInt8[np.ndarray, "s s 3"]
    truth: np.ndarray | None
    heat: Float[np.ndarray, "s s"] | None
    weights: Float[np.ndarray, " shots"] | None


def write_picture(run: Path, dataset: Dataset, path: Path, *, draw: int = 0, ids: Sequence[str] = ()) -> list[str]:
    """Draw a run: by default the highest-scored anomalous and normal queries and the lowest-scored anomalous ones.

    Args:
        run: Folder of a run that kept its maps.
        dataset: Its target's prepared file.
        path: PNG to write.
        draw: Which support draw.
        ids: Queries to show.

    Returns:
        Ids of the queries shown.

    Raises:
        ResultsError: If the run has no maps, isn't of this file, or has no such query or draw.
    """
    folder = RunFolder(run)
    check_made_with(folder, dataset)
    draws = folder.row().draws
    if not 0 <= draw < draws:
        raise ResultsError(f"--draw {draw}: the run has draws 0 to {draws - 1}. Choose one of these.")
    scores = folder.scores()
    scores = scores[scores["draw"] == draw].set_index("id")
    if missing := [name for name in ids if name not in scores.index]:
        raise ResultsError(
            f"--query {missing[0]!r} is no test image of {dataset.name}. `medfsad inspect` shows the file."
        )
    chosen = list(ids) or _extremes(scores)
    figure = drawn(folder, dataset, chosen, draw=draw, with_maps=True)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return chosen


def check_made_with(folder: RunFolder, dataset: Dataset) -> None:
    """Refuse a prepared file that the run wasn't made with.

    Raises:
        ResultsError: If their memberships differ.
    """
    row = folder.row()
    if row.membership_digest != dataset.attributes["membership_digest"]:
        raise ResultsError(
            f"{folder.path}: the run is on another version of {row.target} than {dataset.path}. Expected the file it "
            "was made with; name its folder with --data."
        )


def drawn(folder: RunFolder, dataset: Dataset, ids: Sequence[str], *, draw: int, with_maps: bool) -> "Figure":
    """A figure with one line per query: the image, its map if there are maps, and the supports with their weights.

    Args:
        folder: Of the run.
        dataset: Its target's prepared file.
        ids: Queries to show.
        draw: Which support draw.
        with_maps: Whether to show maps.

    Raises:
        ResultsError: If maps are asked for and none were kept.
    """
    row = folder.row()
    scores = folder.scores()
    lines = _lines(folder, dataset, draw, ids, scores[scores["draw"] == draw].set_index("id"), with_maps=with_maps)
    support = dataset.images(Episodes(dataset, row.shots, contaminated=row.contaminated_supports).support(draw))
    return _figure(row, lines, support)


def _extremes(scores: pd.DataFrame) -> list[str]:
    table = scores.sort_values("score", ascending=False)
    anomalous, normal = table[table["anomalous"]], table[~table["anomalous"]]
    picked = [*anomalous.index[:EACH], *anomalous.index[-EACH:], *normal.index[:EACH], *normal.index[-EACH:]]
    return list(dict.fromkeys(picked))


def _lines(
    folder: RunFolder, dataset: Dataset, draw: int, ids: Sequence[str], table: pd.DataFrame, *, with_maps: bool
) -> list[PictureLine]:
    rank = table["score"].rank(pct=True)
    rows = table.loc[list(ids), "index"].to_numpy(np.int64)
    weights = folder.support_weights(draw)
    maps = folder.maps(draw, rows) if with_maps else [None] * len(rows)
    lines = []
    for id_, row, image, heat in zip(ids, rows, dataset.images(rows), maps, strict=True):
        kind = str(table.loc[id_, "disease"]) if table.loc[id_, "anomalous"] else "normal"
        mask = dataset.mask(int(row))
        text = str(id_)
        name = "\n".join(textwrap.wrap(text, _ID_WIDTH)) or text
        score = float(np.asarray(table.loc[id_, "score"], np.float64))
        title = f"{name}\n{kind}\nscore {score:.4g}, above {100 * rank[id_]:.0f} %"
        lines.append(PictureLine(title, image, outline(mask) if mask.any() else None, heat, weights.get(int(row))))
    return lines


def _figure(row: Row, lines: Sequence[PictureLine], support: UInt8[np.ndarray, "k s s 3"]) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    heats = [line.heat for line in lines if line.heat is not None]
    columns = 1 + bool(heats) + len(support)
    height = 1.85 + 0.1 * max(line.title.count("\n") for line in lines)
    figure = Figure(figsize=(1.75 * columns + 0.6, height * len(lines) + 0.5), layout="constrained")
    panels = figure.subplots(len(lines), columns, squeeze=False)
    shades = Normalize(min(map(np.min, heats), default=0), max(map(np.max, heats), default=1))
    shown = "query, anomaly map, support" if heats else "query, support"
    figure.suptitle(f"{row.method} on {row.target}, {row.shots} shots: {shown}", fontsize=10)
    for line, (query, *others) in zip(lines, panels, strict=True):
        query.imshow(line.image)
        query.set_title(line.title, fontsize=6)
        edge = line.image.shape[0]
        looked_at = [query]
        if line.heat is not None:
            heat, *others = others
            heat.imshow(line.image)
            heat.imshow(line.heat, cmap="inferno", alpha=0.6, norm=shades, extent=(0, edge, edge, 0))
            heat.set_title("map", fontsize=6)
            looked_at.append(heat)
        if line.truth is not None:
            y, x = np.nonzero(line.truth)
            scale = edge / np.array(line.truth.shape)
            for axis in looked_at:
                axis.scatter(x * scale[1], y * scale[0], s=0.3, c="cyan")
        for number, axis in enumerate(others):
            axis.imshow(support[number])
            if line.weights is not None:
                axis.set_title(f"weight {line.weights[number]:.2f}", fontsize=7)
    for axis in panels.ravel():
        axis.set_axis_off()
    if heats:
        colours = ScalarMappable(shades, cmap="inferno")
        bar = figure.colorbar(colours, ax=panels.ravel().tolist(), shrink=min(1.0, 2 / len(lines)), aspect=25, pad=0.01)
        bar.set_label("anomaly map, smoothed", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return figure
