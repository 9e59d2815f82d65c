"""Which layouts there are, and which of them lie in a folder or one level below it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import curated, folders, mri, own, slides, tables
from medfsad_bench.layouts.archives import archives
from medfsad_bench.layouts.finding import Content, Finding
from medfsad_bench.layouts.raw import RawImage, leads_out

Layout = Callable[[Path], Content | None]

LAYOUTS: dict[str, Layout] = {
    "brain_tumor": folders.brain_tumor,
    "rsna": tables.rsna,
    "aptos": tables.aptos,
    "odir": tables.odir,
    "lag": folders.lag,
    "camelyon_patches": curated.camelyon_patches,
    "camelyon_slides": slides.camelyon_slides,
    "lc25000_lung": folders.lc25000_lung,
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
class Download:
    """A folder in which a layout was recognised."""

    layout: str
    root: Path
    images: list[RawImage]
    findings: tuple[Finding, ...] = ()  # what of the folder isn't used as it lies there


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A folder in which no layout was recognised, and why."""

    path: Path
    reason: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name


def recognise(folder: Path) -> tuple[list[Download], list[LeftAlone]]:
    """Find raw downloads in `folder` itself or in its direct subfolders.

    A folder that holds nothing but one other is looked through. Links that lead out of `folder`, or back into it, are
    left alone.

    Args:
        folder: The one that the user named.

    Returns:
        The downloads, and the subfolders that aren't any. If `folder` itself is of a layout, only that is returned.

    Raises:
        DownloadError: If it isn't a folder.
    """
    if not folder.is_dir():
        raise DownloadError(
            f"{folder} is not a folder. Expected the folder of a raw download, or one that holds several; "
            "`medfsad datasets` says what they look like and where to get them."
        )
    if download := _download_in(folder):
        return [download], []
    downloads, left_alone = [], []
    for inner in sorted(_visible_folders(folder)):
        if inner.is_symlink():
            reason = "a link out of the folder" if leads_out(inner, folder) else "a link back into the folder"
            left_alone.append(LeftAlone(inner, f"{reason}; name its target with --source"))
        elif download := _download_in(inner):
            downloads.append(download)
        else:
            left_alone.append(LeftAlone(inner, "a zip file, not unpacked" if archives(inner) else "no known layout"))
    return downloads, left_alone


def _download_in(folder: Path) -> Download | None:
    for _ in range(_WRAPPERS):
        for name, layout in LAYOUTS.items():
            content = layout(folder)
            if content and content.images:
                return Download(name, folder, content.images, content.findings)
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
            return None
        folder = inside[0]
    return None


def _visible_folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise DownloadError(f"{folder}: can't be listed ({error.strerror}). Check its permissions.") from error
