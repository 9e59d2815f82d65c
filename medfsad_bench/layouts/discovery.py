"""Which layouts there are, and what a folder is that one of them recognises."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import curated, folders, mri, own, slides, tables
from medfsad_bench.layouts.archives import is_archive
from medfsad_bench.layouts.finding import Content, Finding
from medfsad_bench.layouts.parts import Part, put_together
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

Kind = Literal["unknown", "failed", "incomplete", "copy"]


@dataclass(frozen=True, slots=True)
class Download:
    """A folder in which a layout was recognised, or what will be that folder once zip files are unpacked.

    Attributes:
        layout: Name of the layout.
        root: The folder. Where zip files have to be unpacked first it doesn't exist yet, and only its name counts.
        images: Those whose files are there.
        findings: What of the folder isn't used as it lies there.
        missing: Those that a table names without there being a file.
        size: Of all files of its images, bytes.
        origin: What the user knows it by: the folder or the zip file.
        parts: What it is made from; empty for a folder that lies there unpacked.
        inside: Where in the parts put together it lies.
    """

    layout: str
    root: Path
    images: list[RawImage]
    findings: tuple[Finding, ...] = ()
    missing: tuple[RawImage, ...] = ()
    size: int = 0
    origin: Path = Path()
    parts: tuple[Part, ...] = ()
    inside: PurePosixPath = PurePosixPath()  # noqa: RUF009 - paths are immutable

    @property
    def is_own(self) -> bool:
        """Whether it is a user's own, of no benchmark."""
        return self.layout in OWN_LAYOUTS

    @property
    def packed(self) -> bool:
        """Whether something has to be unpacked first."""
        return any(is_archive(part.path) for part in self.parts)

    def holds(self, path: Path) -> bool:
        """Whether a path ends in the download once links are followed."""
        return any(not leads_out(path, part.path) for part in self.parts or (Part(self.root),))

    def unpacked(
        self, staging: Path, on_start: Callable[[str, int], None], on_done: Callable[[int], None]
    ) -> "Download":
        """The same download with its zip files unpacked below `staging`, and with all of its files where they lie.

        Args:
            staging: Folder for it.
            on_start: Called with a label and the number of files of a zip file.
            on_done: Called with the number of files unpacked since the last call.

        Raises:
            DownloadError: If a zip file is damaged, or what it unpacks to isn't what its listing promised.
            CurationError: If the disk is too full, or can't be written.
        """
        if not self.packed:
            return self
        folder, parts = put_together(self.parts, self.inside, staging, on_start, on_done)
        again = layout_of(folder)
        if again is None or again.layout != self.layout:
            raise DownloadError(
                f"{self.origin}: its listing looks like {self.layout}, but what it unpacks to doesn't. Unpack it "
                "yourself and name that folder with --source."
            )
        images = [real_files(image) for image in again.images]
        return replace(again, images=images, parts=parts, origin=self.origin)


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A folder or zip file that isn't taken, and why.

    Attributes:
        path: Where it lies; in a zip file the path goes on in it.
        reason: In one line.
        kind: `failed` is damaged or can't be read, `incomplete` lacks parts of a known layout, `copy` is there again.
        layout: Which one it lacks parts of, or is a copy of.
    """

    path: Path
    reason: str
    kind: Kind = "unknown"
    layout: str = ""

    @property
    def name(self) -> str:
        """Its name, fit for printing."""
        return os.fsencode(self.path.name).decode("utf-8", "backslashreplace")


def layout_of(folder: Path) -> Download | None:
    """The layout that a folder itself is of, its subfolders left aside.

    Raises:
        DownloadError: If it is of none, or a user's own alone, and one that was close says what is wrong.
    """
    fault: DownloadError | None = None
    for name, layout in LAYOUTS.items():
        if name == "camelyon_slides":  # lies at any depth, so it would claim whatever lies above it
            continue
        try:
            content = layout(folder)
        except DownloadError as error:
            fault = fault or error
            continue
        if content and content.images:
            if fault and name in OWN_LAYOUTS:  # nobody may have meant it so, and a fault was found in what was meant
                raise fault
            there = [image for image in content.images if image.path.exists() or image.path.is_symlink()]
            ids = {image.id for image in there}
            missing = tuple(image for image in content.images if image.id not in ids)
            size = sum(image.path.stat().st_size for image in there if image.path.exists())
            return Download(name, folder, there, content.findings, missing, size=size, origin=folder)
    if fault:
        raise fault
    return None


def real_files(image: RawImage) -> RawImage:
    """The image with the files that links of `linked` lead to; one step, so that a link in the download stays one."""
    return replace(image, path=_followed(image.path), masks=tuple(map(_followed, image.masks)))


def _followed(file: Path) -> Path:
    return file.readlink() if file.is_symlink() else file
