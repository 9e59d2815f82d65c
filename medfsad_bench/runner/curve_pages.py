"""Curves of trainings as tables and as a picture: does training help, and where?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medfsad_bench.display import markdown_table
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.files import whole
from medfsad_bench.runner.curves import Curve

UNTRAINED, PUBLISHED = "untrained", "published protocol"


def auroc_lines(curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a line per epoch and per control, of strict AUROC with its interval; a column per target.

    The last line is of the published protocol: its own AUROC, and the epoch at which it has it.
    """
    epochs = sorted({epoch for curve in curves for epoch in curve.auroc})
    controls = dict.fromkeys(name for curve in curves for name in curve.controls)
    lines = [
        [UNTRAINED if not epoch else str(epoch), *(_auroc(c.auroc.get(epoch)) for c in curves)] for epoch in epochs
    ]
    lines += [[name, *(_auroc(curve.controls.get(name)) for curve in curves)] for name in controls]
    if any(curve.picked for curve in curves):
        lines.append([PUBLISHED, *(_published(curve) for curve in curves)])
    return ["epoch", *(curve.target for curve in curves)], lines


def loss_lines(curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a line for the first epoch and each that was looked at; a target's losses side by side."""
    names = list(dict.fromkeys(name for curve in curves for losses in curve.losses.values() for name in losses))
    epochs = sorted({epoch for curve in curves for epoch in (min(curve.losses), *curve.auroc) if epoch})
    lines = [[str(epoch), *(_losses(curve.losses.get(epoch, {}), names) for curve in curves)] for epoch in epochs]
    return [f"epoch: {', '.join(names)}", *(curve.target for curve in curves)], lines


def as_markdown(title: str, curves: Sequence[Curve], picture: str = "") -> str:
    """Both tables, and the picture if its address is given.

    Args:
        title: Method, preset and K.
        curves: Of one method, by target.
        picture: Address of the picture from where the page lies.
    """
    seeds = ", ".join(map(str, sorted({curve.seed for curve in curves})))
    parts = [
        f"{title}, training seed {seeds}.\nStrict image AUROC [95 % interval, for this training] after some epochs:",
        "",
        markdown_table(*auroc_lines(curves)),
        "Losses, each the mean over an epoch's steps:",
        "",
        markdown_table(*loss_lines(curves)),
    ]
    return "\n".join([*parts, *([f"![AUROC and losses over the epochs, by target]({picture})", ""] if picture else [])])


def write_picture(title: str, curves: Sequence[Curve], path: Path) -> None:
    """Draw a column per target: AUROC over the epochs with its interval and the controls, and the losses below.

    Args:
        title: Heading.
        curves: Of one method, by target.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(curves) + 0.8, 4.6), layout="constrained")
    panels = figure.subplots(2, len(curves), squeeze=False, sharex=True, sharey="row")
    figure.suptitle(title, fontsize=9)
    for above, below, curve in zip(*panels, curves, strict=True):
        _draw_aurocs(above, curve)
        below.set_xlabel("epoch", fontsize=8)
        for name in dict.fromkeys(name for losses in curve.losses.values() for name in losses):
            by_epoch = {epoch: losses[name] for epoch, losses in curve.losses.items() if name in losses}
            below.plot(list(by_epoch), list(by_epoch.values()), linewidth=1, label=name)
        for panel in (above, below):
            panel.tick_params(labelsize=7)
            panel.grid(linewidth=0.3)
    panels[0, 0].set_ylabel("AUROC", fontsize=8)
    panels[1, 0].set_ylabel("loss", fontsize=8)
    panels[0, 0].legend(fontsize=6)
    panels[1, 0].legend(fontsize=6)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_aurocs(panel: Any, curve: Curve) -> None:
    epochs, estimates = list(curve.auroc), list(curve.auroc.values())
    panel.set_title(curve.target, fontsize=8)
    panel.plot(epochs, [estimate.value for estimate in estimates], color="C0", marker="o", markersize=3, label="strict")
    if all(estimate.low is not None for estimate in estimates):
        lows, highs = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
        panel.fill_between(epochs, lows, highs, color="C0", alpha=0.15, linewidth=0)
    for number, (name, control) in enumerate(curve.controls.items(), start=1):
        panel.axhline(control.value, color=f"C{number}", linestyle="--", linewidth=1, label=name)
    if curve.picked:
        panel.axvline(curve.picked, color="0.6", linestyle=":", linewidth=1, label="epoch that published takes")


def _auroc(estimate: Estimate | None) -> str:
    return "–" if estimate is None else estimate.text


def _published(curve: Curve) -> str:
    return f"{curve.published[curve.picked]:.3f} at epoch {curve.picked}" if curve.picked else "–"


def _losses(losses: dict[str, float], names: Sequence[str]) -> str:
    return ", ".join(f"{losses[name]:.4f}" if name in losses else "–" for name in names)
