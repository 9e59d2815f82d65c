"""All six generated downloads side by side in one folder: how many images of what, and the writing of them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from medfsad_bench.demo import layouts
from medfsad_bench.errors import DownloadError
from medfsad_bench.files import whole_folder

Progress = Callable[[str, int, int], None]

_Writer = Callable[[Path, layouts.Draws, layouts.Counts], Iterator[None]]

# Per class what a split in the proportions of `medfsad-13k` takes, and a few images to spare.
_BRAIN_TUMOR = {"notumor": 33, "glioma": 7, "meningioma": 7, "pituitary": 3, "copies": 8}
_RSNA = {"Normal": 33, "Lung Opacity": 13, "No Lung Opacity / Not Normal": 5}
_HIS = {"train/good": 24, "valid/good": 3, "valid/Ungood": 3, "test/good": 11, "test/Ungood": 11}
_SETS: dict[str, tuple[str, _Writer, Mapping[str, int]]] = {
    "brain_tumor": ("brain-tumor-mri-dataset", layouts.brain_tumor, _BRAIN_TUMOR),
    "rsna": ("rsna-pneumonia-detection-challenge", layouts.rsna, _RSNA),
    "aptos": ("aptos2019-blindness-detection", layouts.aptos, {"0": 30, "1-4": 29}),
    "lag": ("LAG_database", layouts.lag, {"non_glaucoma": 34, "suspicious_glaucoma": 13}),
    "his": ("Camelyon16_AD", layouts.his, _HIS),
    "brats": ("BraTS2021_Training_Data", layouts.brats, {"patients": 16}),
}
_NOTE = """\
Generated phantoms, not images of people. Written by `medfsad demo` (seed {seed}) in the layouts of the real downloads,
to try the whole path without them. A figure measured on them says nothing about a method.
"""


def write_demo_downloads(
    folder: Path, *, seed: int = 0, scale: float = 1.0, on_progress: Progress | None = None
) -> list[Path]:
    """Write small generated raw downloads of all six sets, each in its true layout.

    The same seed and scale give the same bytes on one machine. The folder appears whole or not at all.

    Args:
        folder: New or empty.
        seed: Of every draw.
        scale: Factor on the number of images of every class (at least one stays); 1 is enough for 8 shots.
        on_progress: Called after every image with the set's name, how many are done and how many there will be.

    Returns:
        The folders of the sets, one below `folder` each.

    Raises:
        DownloadError: If the folder isn't empty or the scale isn't positive.
    """
    if not scale > 0:
        raise DownloadError(f"scale is {scale}; expected a positive number, such as 1 for the usual demo.")
    _must_be_empty(folder)
    with whole_folder(folder) as growing:
        for number, (name, (download, write, usual)) in enumerate(_SETS.items()):
            counts = {kind: max(1, round(count * scale)) for kind, count in usual.items()}
            for done, _ in enumerate(write(growing / download, layouts.Draws(seed, number), counts), start=1):
                if on_progress:
                    on_progress(name, done, sum(counts.values()))
        (growing / "README.txt").write_text(_NOTE.format(seed=seed), encoding="utf-8")
    return [folder / download for download, _, _ in _SETS.values()]


def _must_be_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DownloadError(f"{folder} is a file. Expected a new or an empty folder for the generated downloads.")
    if folder.is_dir() and (inside := sorted(path.name for path in folder.iterdir())):
        raise DownloadError(
            f"{folder} is not empty (it holds {inside[0]!r}{' and more' if len(inside) > 1 else ''}). Expected a new "
            "or an empty folder for the generated downloads, which never mix with other files; name another one."
        )
