"""Which layouts there are, and which of them lie in a folder or one level below it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import curated, folders, histology, mri, own, slides, tables
from medfsad_bench.layouts.archives import archives
from medfsad_bench.layouts.raw import RawImage, leads_out

Layout = Callable[[Path], list[RawImage] | None]

LAYOUTS: dict[str, Layout] = {
    "brain_tumor": folders.brain_tumor,
    "rsna": tables.rsna,
    "aptos": tables.aptos,
    "odir": tables.odir,
    "lag": folders.lag,
    "camelyon_patches": histology.camelyon_patches,
    "camelyon_slides": slides.camelyon_slides,
    "lc25000_lung": histology.lc25000_lung,
    "brats": mri.brats,
    "lgg": mri.lgg,
    "chest_child": folders.chest_child,
    "chest_nih": tables.chest_nih,
    "medianomaly_rsna": curated.medianomaly("rsna"),
    "medianomaly_lag": curated.medianomaly("lag"),
    "medianomaly_his": curated.medianomaly("his"),
    "medianomaly_brain_tumor": curated.medianomaly("brain_tumor"),
    "medianomaly": curated.medianomaly("other"),
    "bmad": curated.bmad,
    "plain": own.plain,
    "table": own.table,
}
OWN_LAYOUTS = frozenset({"plain", "table", "medianomaly", "bmad"})  # of no benchmark: a manifest is made on the spot
_WRAPPERS = 3  # folders that hold nothing but one folder, as archives often do


@dataclass(frozen=True, slots=True)
class Recognised:
    """A folder in which a layout was found."""

    layout: str
    root: Path
    images: list[RawImage]


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A folder in which nothing was found, and why."""

    path: Path
    reason: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name


def recognise(source: Path) -> tuple[list[Recognised], list[LeftAlone]]:
    """Find raw downloads in `source` itself or in its direct subfolders.

    A folder that holds nothing but one other is looked through. Links that lead out of the source, or back into it, are
    left alone.

    Args:
        source: The folder that the user named.

    Returns:
        What was recognised, and the subfolders that weren't. If `source` itself is of a layout, only that is returned.

    Raises:
        DownloadError: If it isn't a folder.
    """
    if not source.is_dir():
        raise DownloadError(
            f"{source} is not a folder. Expected the folder of a raw download, or one that holds several; "
            "`medfsad datasets` says what they look like and where to get them."
        )
    found = _match(source)
    if found:
        return [found], []
    recognised, left = [], []
    for folder in sorted(_visible(source)):
        if folder.is_symlink():
            reason = "a link out of the source" if leads_out(folder, source) else "a link back into the source"
            left.append(LeftAlone(folder, f"{reason}; name its target with --source"))
        elif match := _match(folder):
            recognised.append(match)
        else:
            left.append(LeftAlone(folder, "a zip file, not unpacked" if archives(folder) else "no known layout"))
    return recognised, left


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise DownloadError(f"{folder}: can't be listed ({error.strerror}). Check its permissions.") from error


def _match(folder: Path) -> Recognised | None:
    for _ in range(_WRAPPERS):
        for name, layout in LAYOUTS.items():
            images = layout(folder)
            if images:
                return Recognised(name, folder, images)
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
            return None
        folder = inside[0]
    return None
