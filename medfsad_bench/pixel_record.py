"""What a run keeps of its anomaly maps: per draw the exact pixel figures, and a tally that intervals are drawn from.

Figures can be had again from the record alone, without the maps and without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from medfsad_bench.errors import ResultsError
from medfsad_bench.metrics.pixel import pixel_figures
from medfsad_bench.metrics.pixel_interval import pixel_bootstrap_interval
from medfsad_bench.metrics.ranks import Maps, Masks
from medfsad_bench.metrics.tally import PIXEL_STATISTICS, Tally, tally_pixels
from medfsad_bench.results import REPLICATES, Figure, mean_figure

BINS = 512  # of a tally; the interval is shifted by what they cost, so they only shape its width


@dataclass(frozen=True, slots=True)
class PixelDraw:
    """Pixel figures of one support draw.

    Attributes:
        figures: Exact, by the names of `medfsad_bench.metrics.tally.PIXEL_STATISTICS`.
        tally: Pixels per image and score bin.
    """

    figures: Mapping[str, float]
    tally: Tally

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, for an .npz file."""
        names = sorted(self.figures)
        found = {field.name: getattr(self.tally, field.name) for field in fields(Tally)}
        return {"names": np.array(names), "values": np.array([self.figures[name] for name in names]), **found}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PixelDraw":
        """The inverse of `arrays`."""
        figures = dict(zip(arrays["names"].tolist(), arrays["values"].tolist(), strict=True))
        return cls(figures, Tally(**{field.name: arrays[field.name] for field in fields(Tally)}))


def measure_pixels(maps: Maps, masks: Masks) -> PixelDraw:
    """Figures and tally of one draw's maps, each at its mask's resolution."""
    return PixelDraw(pixel_figures(maps, masks), tally_pixels(maps, masks, bins=BINS))


def figures_of_draws(
    draws: Sequence[PixelDraw], groups: Int64[np.ndarray, " n"], *, seed: int = 0
) -> dict[str, Figure]:
    """Mean over draws with its 95 % interval, crossed over groups of images and draws.

    Args:
        draws: One a support draw, of the same images.
        groups: Group number of every image.
        seed: Of the bootstrap.
    """
    found = {}
    for name in PIXEL_STATISTICS:
        values = [draw.figures[name] for draw in draws]
        interval = pixel_bootstrap_interval(
            [draw.tally for draw in draws], groups, metric=name, figures=values, replicates=REPLICATES, seed=seed
        )
        found[name] = mean_figure(np.array(values), (interval.low, interval.high))
    return found


def write_pixels(path: Path, draws: Sequence[PixelDraw]) -> None:
    """Write the record of all draws, whole or not at all."""
    arrays = {
        f"{number:02d}/{name}": value for number, draw in enumerate(draws) for name, value in draw.arrays().items()
    }
    temporary = path.with_name(f".{path.name}.tmp.npz")
    np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes the names for options
    temporary.replace(path)


def read_pixels(path: Path) -> list[PixelDraw]:
    """Read the record of a run; empty if it kept none.

    Raises:
        ResultsError: If the file is damaged.
    """
    if not path.is_file():
        return []
    by_draw: dict[str, dict[str, np.ndarray]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                number, name = key.split("/")
                by_draw.setdefault(number, {})[name] = file[key]
        return [PixelDraw.of_arrays(by_draw[number]) for number in sorted(by_draw)]
    except (OSError, ValueError, KeyError) as error:
        raise ResultsError(f"{path}: the pixel record can't be read ({error}). Run the cell again.") from error
