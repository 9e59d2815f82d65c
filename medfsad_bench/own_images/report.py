"""`report.html`: one file that needs nothing else, for whoever has to judge the scores. Pictures are inside."""

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medfsad_bench.display import html_templates, visible
from medfsad_bench.files import write_text
from medfsad_bench.own_images.blocks import Row
from medfsad_bench.own_images.inputs import LeftOut
from medfsad_bench.own_images.pictures import Rgb, in_proportion, thumbnail
from medfsad_bench.own_images.support import Support

_BINS = 40
_SUPPORTS_SHOWN = 200
_LEFT_OUT_SHOWN = 1000
_VERSIONS = ("medfsad", "torch", "timm", "numpy", "pydicom", "nibabel", "pillow")


def write_report(
    path: Path,
    table: pd.DataFrame,
    rows: Sequence[Row],
    support: Support,
    settings: Mapping[str, Any],
    left_out: Sequence[LeftOut],
    figures: Sequence[tuple[str, str]],
    *,
    thumbnail_px: int,
) -> None:
    """Write the report whole or not at all.

    Args:
        path: Of the file.
        table: One line per image, see `scores_table`.
        rows: The same images with their small pictures.
        support: What they were compared with.
        settings: All that the scores depend on.
        left_out: What wasn't scored.
        figures: From labels, where there are any: names and values in words.
        thumbnail_px: Edge of small pictures.
    """
    shown = _supports_shown(support, set(table["nearest_support"]) if "nearest_support" in table else set())
    pictures = {
        visible(support.images[position].id): thumbnail(_picture(support, position), thumbnail_px) for position in shown
    }
    html = (
        html_templates("medfsad_bench.own_images", ".")
        .get_template("report.html.jinja")
        .render(
            cards=_cards(table, rows),
            supports=pictures,
            audit=_audit(support, shown),
            not_shown=len(support.images) - len(shown),
            histogram=_histogram(table["score"].to_numpy(float), support),
            counts={
                "images": len(table),
                "flagged": int(table["flagged"].sum()),
                "not_comparable": int((table["not_comparable"] != "").sum()),
                "supports": len(support.images),
            },
            settings=settings,
            facts=_facts(settings),
            left_out=left_out[:_LEFT_OUT_SHOWN],
            left_out_count=len(left_out),
            figures=figures,
        )
    )
    write_text(path, html)


def _supports_shown(support: Support, nearest: set[str]) -> list[int]:
    """Positions of the supports that the report shows: highest left-out score first, those that are needed beyond."""
    scores = np.where(np.isfinite(support.left_out), support.left_out, -np.inf)
    order = [int(position) for position in np.argsort(-scores, kind="stable")]
    needed = [position for position in order if support.images[position].id in nearest]
    return list(dict.fromkeys([*order[:_SUPPORTS_SHOWN], *needed]))


def _picture(support: Support, position: int) -> Rgb:
    pixels, facts = support.pixels[position], support.facts[position]
    return in_proportion(pixels, facts.height, facts.width, edge=len(pixels))


def _audit(support: Support, shown: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "id": visible(support.images[position].id),
            "score": None if math.isnan(support.left_out[position]) else float(support.left_out[position]),
            "suspect": support.suspects.get(support.images[position].id, ""),
        }
        for position in shown
    ]


def _cards(table: pd.DataFrame, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What the gallery shows of each image, as its script sets it; names are short, as there may be thousands."""
    cards = []
    for line, row in zip(table.to_dict("records"), rows, strict=True):
        part = "".join(f", {name} {row[name]}" for name in ("slice", "frame") if row[name] is not None)
        percentile = line["percentile"]
        cards.append(
            {
                "f": visible(f"{line['file']}{part}"),
                "s": line["score"],
                "p": None if math.isnan(percentile) else round(percentile),
                "x": int(line["flagged"]),
                "c": visible(line["not_comparable"]),
                "n": visible(row["nearest_support"]),
                "w": row["support_weight"],
                "t": visible(line["warnings"]),
                "id": visible(line.get("patient", "")),
                "o": row["overlay"],
                "i": row["thumbnail"],
                "m": row["thumbnail_overlay"],
            }
        )
    return cards


def _histogram(scores: np.ndarray, support: Support) -> dict[str, Any]:
    """Bars, marks and ends in per cent of the width and height of a picture."""
    supports = support.left_out[np.isfinite(support.left_out)]
    limit = support.threshold.value
    everything = np.concatenate([scores, supports, [] if limit is None else [limit]])
    low, high = float(everything.min()), float(everything.max())
    span = max(high - low, 1e-12)
    counts, edges = np.histogram(scores, _BINS, (low, low + span))
    return {
        "low": low,
        "high": high,
        "most": int(counts.max()),
        "bars": [
            {"x": 100 * (edge - low) / span, "width": 100 / _BINS, "height": 100 * count / counts.max(), "count": count}
            for edge, count in zip(edges[:-1].tolist(), counts.tolist(), strict=True)
            if count
        ],
        "supports": [100 * (score - low) / span for score in supports.tolist()],
        "threshold": None if limit is None else 100 * (limit - low) / span,
    }


def _facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    method = settings["method"]
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS} | {"python": platform.python_version()}
    return {
        "Command": settings["command"],
        "Method": f"{method['method']} {method['method_version']}",
        "Trained on": settings["trained_on"],
        "Public data behind its weights": ", ".join(method["has_seen"]) or "none stated",
        "Settings of the method": ", ".join(f"{name} = {value}" for name, value in method["config"].items()),
        "Feature network's weights (SHA-256)": method["weights"] or "none",
        "Checkpoint (SHA-256)": method["checkpoint"] or "none",
        "Images": f"squashed to {settings['size_px']} px, crop {settings['crop']}",
        "Grey values of pictures": settings["intensity"]["picture"],
        "Grey values of volumes": settings["intensity"]["volume"],
        "Colours of the maps": settings["map_colours"],
        "Plain maps": settings["map_png"] if settings["maps"] else "not written (--maps)",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Key of all that determines this (SHA-256)": settings["key"],
    }
