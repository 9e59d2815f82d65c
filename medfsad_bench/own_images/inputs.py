"""Which images lie in the files and folders that a user names: pictures, frames, slices; zip files are unpacked."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from medfsad_bench.errors import DownloadError, MedfsadError
from medfsad_bench.layouts import RawImage
from medfsad_bench.layouts.archives import MARKER, is_archive, unpack
from medfsad_bench.layouts.columns import is_placeholder
from medfsad_bench.layouts.headers import kind_of, page_count, read_ids
from medfsad_bench.layouts.raw import leads_out
from medfsad_bench.layouts.walk import readable, walk
from medfsad_bench.readers.nifti import axial_count

_CENTRAL = "central"


@dataclass(frozen=True, slots=True)
class SliceChoice:
    """Which axial slices of a volume are taken.

    Attributes:
        step: Every how many slices; 1 takes all.
        central: Whether only the one in the middle is taken.
    """

    step: int = 1
    central: bool = False

    @classmethod
    def of(cls, text: str) -> "SliceChoice":
        """From the words of the command line.

        Raises:
            DownloadError: If they are none of these.

        >>> SliceChoice.of("every 3"), SliceChoice.of("central").central
        (SliceChoice(step=3, central=False), True)
        """
        words = text.lower().replace("=", " ").split()
        if words == ["all"]:
            return cls()
        if words == [_CENTRAL]:
            return cls(central=True)
        if len(words) == 2 and words[0] == "every" and words[1].isdecimal() and int(words[1]) > 0:
            return cls(step=int(words[1]))
        raise DownloadError(f"--slices {text!r} is unknown. Expected all, central, or 'every N' as in 'every 3'.")

    def numbers(self, count: int) -> range:
        """Of the slices that are taken from a volume of so many."""
        return range(count // 2, count // 2 + 1) if self.central else range(0, count, self.step)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or image that isn't scored, and why."""

    name: str
    reason: str


def together(left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """Slices or frames of one file that are left out for one reason, on one line.

    >>> together([LeftOut("a.nii#000", "blank"), LeftOut("a.nii#001", "blank"), LeftOut("b.png", "blank")])
    [LeftOut(name='a.nii, 2 slices or frames', reason='blank'), LeftOut(name='b.png', reason='blank')]
    """
    numbers = Counter((_file_of(item), item.reason) for item in left_out)
    lines: dict[tuple[str, str], LeftOut] = {}
    for item in left_out:
        key = _file_of(item), item.reason
        name = item.name if numbers[key] == 1 else f"{key[0]}, {numbers[key]} slices or frames"
        lines.setdefault(key, LeftOut(name, item.reason))
    return list(lines.values())


def _file_of(item: LeftOut) -> str:
    return item.name.rpartition("#")[0] or item.name


@dataclass(frozen=True, slots=True)
class Inputs:
    """What lies in the files and folders that were named.

    Attributes:
        images: One per picture, frame and slice, file by file. The ids are paths below what was named; `patient` is
            what images that aren't independent share: DICOM's patient, else the file.
        left_out: What can't be scored.
    """

    images: list[RawImage]
    left_out: list[LeftOut]


def images_in(
    named: Sequence[Path],
    slices: SliceChoice,
    *,
    option: str,
    unpack_to: Path,
    on_start: Callable[[str, int], None] = lambda *_: None,
    on_done: Callable[[int], None] = lambda _: None,
) -> Inputs:
    """All images of some files, folders and zip files.

    Args:
        named: By the user.
        slices: Which ones of a volume.
        option: That named them, for messages.
        unpack_to: Folder for the content of zip files.
        on_start: Called with a label and a number of files.
        on_done: Called with the number of files done since the last call.

    Raises:
        DownloadError: If one of `named` isn't there, or none of them holds an image.
    """
    files: dict[str, Path] = {}
    left_out: list[LeftOut] = []
    for path in named:
        if not path.exists():
            raise DownloadError(
                f"{option} {path}: there is no such file or folder. Expected images, or a folder of them."
            )
        _collect(path, path.name if path.is_file() else "", files, left_out, unpack_to, (on_start, on_done))
    images: list[RawImage] = []
    on_start("looking at files", len(files))
    for name, path in files.items():
        try:
            images += _images_of(name, path, slices)
        except (DownloadError, OSError) as error:
            left_out.append(LeftOut(name, readable(str(error))))
        on_done(1)
    if not images:
        why = "; ".join(f"{item.name}: {item.reason}" for item in left_out[:3])
        raise DownloadError(
            f"{option} {', '.join(map(str, named[:3]))}: no image in it{f' ({why})' if why else ''}. Expected PNG, "
            "JPEG, TIFF, DICOM or NIfTI files, a folder of them, or a zip file of that."
        )
    return Inputs(images, left_out)


def _collect(
    path: Path,
    name: str,
    files: dict[str, Path],
    left_out: list[LeftOut],
    unpack_to: Path,
    watch: tuple[Callable[[str, int], None], Callable[[int], None]],
) -> None:
    """Files by a name that tells them apart, whatever lies around them."""
    if is_archive(path):
        folder = unpack_to / f"{len(files)}-{path.stem}"
        try:
            unpack(path, folder, inside=PurePosixPath(), on_start=watch[0], on_done=watch[1])
        except MedfsadError as error:
            left_out.append(LeftOut(name, readable(str(error))))
            return
        path = folder
    if path.is_file():
        files[name if name not in files else str(path)] = path
        return
    content = walk(path)
    left_out += [LeftOut(item.where, item.what) for item in content.unreachable if item.where != MARKER]
    for file in content.files:
        below = (PurePosixPath(name) / file.relative_to(path).as_posix()).as_posix()
        if leads_out(file, path):
            left_out.append(
                LeftOut(below, "a link that leads out of the folder: not followed. Put the file itself there")
            )
        elif is_archive(file):
            _collect(file, below, files, left_out, unpack_to, watch)
        else:
            files[below if below not in files else str(file)] = file


def _images_of(name: str, path: Path, slices: SliceChoice) -> list[RawImage]:
    """The pictures of one file.

    Raises:
        DownloadError: If it is no image.
    """
    kind = kind_of(path)
    if not kind:
        raise DownloadError("no image that can be read: neither PNG, JPEG, TIFF, DICOM nor NIfTI")
    image = RawImage(id=name, path=path, label="", patient=name)
    if kind == "volume":
        return [
            replace(image, id=f"{name}#{number:03d}", slice_index=number)
            for number in slices.numbers(axial_count(path))
        ]
    frames = page_count(path)
    if kind == "dicom":
        patient = read_ids(path).patient
        image = replace(image, patient=f"patient {patient}" if not is_placeholder(patient) else name)
    if frames > 1:
        image = replace(image, frames=frames)
        return [replace(image, id=f"{name}#{number:04d}", frame=number) for number in range(frames)]
    return [image]
