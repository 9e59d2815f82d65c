"""Figures of reports: matplotlib's SVG as the address of a picture, whose colours follow the reader's light or dark."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from medfsad_bench.estimates.curves import Point
from medfsad_bench.estimates.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _QUIET, _LINE, _NORMAL, _ANOMALOUS = "#1d2327", "#5b656c", "#d9dee1", "#005a9c", "#b34700"
_IN_THE_DARK = {_INK: "#e6eaec", _QUIET: "#a3aeb5", _LINE: "#343c42", _NORMAL: "#7cc0f5", _ANOMALOUS: "#f2a65e"}
_STYLE: Any = {  # matplotlib's types list every name
    **{f"{part}.color": _INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "medfsad",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside a page.

    Attributes:
        source: Its address, which holds it.
        text: What it shows, for whoever doesn't see it.
    """

    source: str
    text: str


def curve_picture(
    points: Sequence[Point],
    marks: Mapping[str, tuple[Estimate, Estimate]],
    *,
    axes: tuple[str, str],
    chance: Sequence[tuple[float, float]],
    text: str,
) -> Picture:
    """A curve with its band, chance dashed, and operating points with the intervals of both their rates.

    Args:
        points: Of the curve.
        marks: Rate on the x axis and rate on the y axis of each operating point.
        axes: What the axes show.
        chance: Two points of the line that says nothing.
        text: What the picture shows.
    """
    with _drawn(4.4, 4.4, text) as (figure, pictures):
        axis = figure.subplots()
        x, y = np.array([point.at for point in points]), np.array([point.estimate.value for point in points])
        ends = [(point.estimate.low, point.estimate.high) for point in points]
        low, high = (np.array([end[side] for end in ends], float) for side in (0, 1))  # None becomes NaN: no band
        axis.fill_between(x, low, high, color=_NORMAL, alpha=0.18, linewidth=0, label="95 %, point by point")
        axis.plot(x, y, color=_NORMAL, label="mean over draws")
        axis.plot(*zip(*chance, strict=True), color=_QUIET, linestyle="--", linewidth=0.8, label="chance")
        for marker, (name, (across, up)) in zip("sD^v", marks.items(), strict=False):
            bars = [_bars(estimate) for estimate in (across, up)]
            axis.errorbar(
                across.value, up.value, xerr=bars[0], yerr=bars[1], fmt=marker, color=_ANOMALOUS, label=name, capsize=2
            )
        axis.set(xlabel=axes[0], ylabel=axes[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        figure.legend(loc="outside lower center", ncols=2)
    return pictures[0]


def histogram_picture(
    scores: Float[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], thresholds: Mapping[str, float], *, text: str
) -> Picture:
    """Scores by class, each class's bars adding up to 1, and thresholds that were set without anomalies."""
    with _drawn(6.4, 3.4, text) as (figure, pictures):
        axis = figure.subplots()
        edges = np.histogram_bin_edges(scores, min(40, max(10, len(scores) // 10))).tolist()
        for part, colour, hatch, name in (
            (~anomalous, _NORMAL, "", "normal"),
            (anomalous, _ANOMALOUS, "///", "anomalous"),
        ):
            shares = np.full(int(part.sum()), 1 / part.sum())
            axis.hist(
                scores[part], edges, weights=shares, color=colour, alpha=0.25, hatch=hatch, edgecolor=colour, label=name
            )
        for style, (name, value) in zip(("-", "--"), thresholds.items(), strict=False):
            axis.axvline(value, color=_INK, linestyle=style, linewidth=1.2, label=name)
        axis.set(xlabel="image score", ylabel="share of the class")
        figure.legend(loc="outside lower center", ncols=2)
    return pictures[0]


def draws_picture(draws: Mapping[str, Sequence[float]], means: Mapping[str, Estimate], *, text: str) -> Picture:
    """Image AUROC of each draw as a ring, the mean with its interval filled; a line joins equal draws of two runs."""
    with _drawn(6.4, 0.9 + 0.55 * len(draws), text) as (figure, pictures):
        axis = figure.subplots()
        names = list(draws)
        for number, name in enumerate(names):
            axis.plot(draws[name], [number] * len(draws[name]), "o", mfc="none", color=_NORMAL, markersize=5)
            _estimate_at(axis, means[name], number + 0.25)
        for values in zip(*draws.values(), strict=True) if len(draws) > 1 else ():
            axis.plot(values, range(len(names)), color=_LINE, linewidth=0.8, zorder=0)
        axis.axvline(0.5, color=_QUIET, linestyle="--", linewidth=0.8)
        axis.set(xlabel="image AUROC", ylim=(len(names) - 0.3, -0.5))
        axis.set_yticks(range(len(names)), names)
    return pictures[0]


def estimates_picture(estimates: Mapping[str, Estimate], *, label: str, neutral: float | None, text: str) -> Picture:
    """Estimates below each other with their intervals; `neutral`, the value that says nothing, is dashed."""
    with _drawn(6.4, 0.9 + 0.32 * len(estimates), text) as (figure, pictures):
        axis = figure.subplots()
        for number, estimate in enumerate(estimates.values()):
            _estimate_at(axis, estimate, number)
        if neutral is not None:
            axis.axvline(neutral, color=_QUIET, linestyle="--", linewidth=0.8)
        axis.set(xlabel=label, ylim=(len(estimates) - 0.4, -0.6))
        axis.set_yticks(range(len(estimates)), list(estimates))
    return pictures[0]


def froc_picture(points: Sequence[Point], *, text: str) -> Picture:
    """Share of lesions found by false detections per image, on a scale of doublings."""
    with _drawn(4.2, 3.4, text) as (figure, pictures):
        axis = figure.subplots()
        for point in points:
            axis.errorbar(point.at, point.estimate.value, yerr=_bars(point.estimate), fmt="o", color=_NORMAL, capsize=2)
        axis.plot([point.at for point in points], [point.estimate.value for point in points], color=_NORMAL)
        axis.set_xscale("log", base=2)
        axis.set_xticks([point.at for point in points], [f"{point.at:g}" for point in points])
        axis.set(xlabel="false detections per image", ylabel="share of lesions found", ylim=(-0.02, 1.02))
    return pictures[0]


def ranks_picture(
    ranks: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    anomalous: Bool[np.ndarray, " n"],
    names: tuple[str, str],
    *,
    text: str,
) -> Picture:
    """The rank that two methods give each image, from 0 (least anomalous) to 1, by class."""
    with _drawn(4.4, 4.4, text) as (figure, pictures):
        axis = figure.subplots()
        for part, colour, marker, name in (
            (~anomalous, _NORMAL, "o", "normal"),
            (anomalous, _ANOMALOUS, "^", "anomalous"),
        ):
            axis.scatter(ranks[1][part], ranks[0][part], s=9, c=colour, marker=marker, alpha=0.6, label=name)
        axis.plot([0, 1], [0, 1], color=_QUIET, linestyle="--", linewidth=0.8)
        axis.set(xlabel=f"rank by {names[1]}", ylabel=f"rank by {names[0]}")
        figure.legend(loc="outside lower center", ncols=2)
    return pictures[0]


def png_picture(figure: "Figure", *, text: str) -> Picture:
    """A figure of images as PNG, since pixels gain nothing from SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return Picture(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", text)


@contextmanager
def _drawn(width: float, height: float, text: str) -> "Iterator[tuple[Figure, list[Picture]]]":
    """Lend a figure, and put the picture that it has become by the end of the block into the list."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    pictures: list[Picture] = []
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, pictures
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pictures.append(Picture(_address_of(buffer.getvalue()), text))


def _address_of(svg: str) -> str:
    """An SVG file as an address; its colours have names, which mean others where the reader likes it dark."""
    names = {colour: f"--c{number}" for number, colour in enumerate(_IN_THE_DARK)}
    for colour, name in names.items():
        svg = svg.replace(colour, f"var({name})")
    light, dark = (
        "".join(f"{name}:{value};" for name, value in zip(names.values(), values, strict=True))
        for values in (_IN_THE_DARK.keys(), _IN_THE_DARK.values())
    )
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>"
    start = svg.index(">", svg.index("<svg")) + 1
    content = svg[svg.index("<svg") : start] + style + svg[start:]
    return f"data:image/svg+xml;base64,{base64.b64encode(content.encode()).decode()}"


def _estimate_at(axis: "Axes", estimate: Estimate, position: float) -> None:
    axis.errorbar(estimate.value, position, xerr=_bars(estimate), fmt="o", color=_ANOMALOUS, capsize=3, markersize=5)


def _bars(estimate: Estimate) -> Float[np.ndarray, "2 1"] | None:
    """Lengths of the two halves of an interval, as matplotlib takes them; None where there is none."""
    if estimate.low is None or estimate.high is None:
        return None
    return np.array([[max(estimate.value - estimate.low, 0)], [max(estimate.high - estimate.value, 0)]])
