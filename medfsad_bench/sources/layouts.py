"""Which layouts there are, and which of them lie in a folder or one level below it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medfsad_bench.errors import SourceError
from medfsad_bench.sources import folders, histology, mri, tables
from medfsad_bench.sources.raw import RawImage

Layout = Callable[[Path], list[RawImage] | None]

LAYOUTS: dict[str, Layout] = {
    "brain_tumor": folders.brain_tumor,
    "rsna": tables.rsna,
    "aptos": tables.aptos,
    "odir": tables.odir,
    "lag": folders.lag,
    "camelyon_patches": histology.camelyon_patches,
    "lc25000_lung": histology.lc25000_lung,
    "brats": mri.brats,
    "lgg": mri.lgg,
    "chest_child": folders.chest_child,
    "chest_nih": tables.chest_nih,
    "plain": folders.plain,
}


@dataclass(frozen=True, slots=True)
class Recognised:
    """A folder in which a layout was found."""

    layout: str
    root: Path
    images: list[RawImage]


def recognise(source: Path) -> tuple[list[Recognised], list[Path]]:
    """Find raw downloads in `source` itself or in its direct subfolders.

    Args:
        source: The folder that the user named.

    Returns:
        What was recognised, and the subfolders that weren't. If `source` itself is of a layout, only that is returned.

    Raises:
        SourceError: If it isn't a folder.
    """
    if not source.is_dir():
        raise SourceError(
            f"{source} is not a folder. Expected the folder of a raw download, or one that holds several; "
            "`medfsad datasets` says what they look like and where to get them."
        )
    found = _match(source)
    if found:
        return [found], []
    subfolders = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))
    matches = [(folder, _match(folder)) for folder in subfolders]
    return [match for _, match in matches if match], [folder for folder, match in matches if not match]


def _match(folder: Path) -> Recognised | None:
    for name, layout in LAYOUTS.items():
        images = layout(folder)
        if images:
            return Recognised(name, folder, images)
    return None
