"""DICOM, through pydicom and its decoder plugins: one frame as a person sees it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.dicom_grey import (
    LookUpTable,
    functional_group,
    is_unwindowed,
    physical_values,
    shown_grey,
    stored_values,
)
from medfsad_bench.readers.dicom_privacy import privacy_notes
from medfsad_bench.readers.picture import Intensity, Picture, check_size, decoding, grey_if_equal, one_line, to_8_bits

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, JPEG2000MC, HTJ2K)
_SQUARE = 1e-3  # relative difference of the two spacings below which pixels count as square


def read_dicom(path: Path, *, intensity: Intensity, frame: int | None = None) -> Picture:
    """Read one frame as a person sees it; without a number the first, which is noted where there are several.

    Grey: see `shown_grey`. Colour: YBR and palettes converted to RGB, more than 8 bits scaled by BitsStored. Overlays
    aren't drawn. Pixels that aren't square are noted and left as they are: a square picture is squashed anyway.

    Raises:
        DownloadError: If it isn't DICOM, has no pixels, or can't be decoded.
    """
    with _quiet(), decoding(path.name, "rescale, window or palette don't fit the pixels"):
        dataset = _open(path)
        raw = _decode(path, dataset, frame or 0)
        picture = _picture(path, dataset, raw, intensity, frame or 0)
        if picture.frames > 1 and frame is None:
            return replace(picture, warnings=(*picture.warnings, f"first of several frames taken ({picture.frames})"))
        return picture


def read_stored(path: Path, *, frame: int) -> tuple[Dataset, np.ndarray, bool]:
    """Header, stored values of one frame, (h, w) or RGB (h, w, 3), and whether they were coded lossily.

    Raises:
        DownloadError: As `read_dicom`.
    """
    with _quiet(), decoding(path.name, "the header doesn't fit the pixels"):
        dataset = _open(path)
        raw = _decode(path, dataset, frame)
        lossy = dataset.file_meta.TransferSyntaxUID in _LOSSY or dataset.get("LossyImageCompression") == "01"
        return dataset, raw if raw.ndim == 3 else stored_values(dataset, raw), lossy


def dicom_extremes(path: Path) -> tuple[float, float] | None:
    """The least and the greatest physical value of a file whose bits say nothing of its range; None of any other.

    That is: grey, as many bits stored as allocated, 16 or more, and neither window nor VOI LUT.

    Raises:
        DownloadError: As `read_dicom`.
    """
    if not is_unwindowed(read_header(path)):
        return None
    with _quiet(), decoding(path.name, "the header doesn't fit the pixels"):
        dataset = _open(path)
        frames = [
            physical_values(dataset, _decode(path, dataset, frame), frame) for frame in range(header_frames(dataset))
        ]
        return float(min(values.min() for values in frames)), float(max(values.max() for values in frames))


def header_frames(dataset: Dataset) -> int:
    """How many frames a file holds."""
    try:
        return max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    except (TypeError, ValueError):
        return 1


def read_header(path: Path) -> Dataset:
    """The header alone, without the pixels.

    Raises:
        DownloadError: If it isn't DICOM or is damaged.
    """
    with _quiet():
        return _read(path, header_only=True)


def _picture(path: Path, dataset: Dataset, raw: np.ndarray, intensity: Intensity, frame: int) -> Picture:
    if raw.ndim == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        shown = Picture(grey_if_equal(_colour(dataset, raw)))
    else:
        shown = shown_grey(path.name, dataset, raw, intensity, frame=frame)
    spacing = _spacing(dataset, frame)
    return replace(
        shown,
        pixels=np.ascontiguousarray(shown.pixels),
        spacing_mm=spacing,
        transfer_syntax=_syntax_name(dataset),
        patient=str(dataset.get("PatientID", "") or ""),
        warnings=shown.warnings + _aspect_notes(dataset, spacing),
        frames=header_frames(dataset),
        privacy=privacy_notes(dataset),
    )


def _open(path: Path) -> Dataset:
    dataset = _read(path, header_only=False)
    if not any(dataset.get(name) for name in _PIXELS):
        kind = _one_word(dataset.get("Modality", "") or dataset.get("SOPClassUID", ""))
        raise DownloadError(f"{path.name}: a DICOM file without pixels ({kind or 'of no stated kind'}). Leave it out.")
    return dataset


def _read(path: Path, *, header_only: bool) -> Dataset:
    with decoding(path.name, "the DICOM header is damaged"):
        try:
            return dcmread(path, stop_before_pixels=header_only)
        except InvalidDicomError:
            return _forced(path, header_only=header_only)


def _forced(path: Path, *, header_only: bool) -> Dataset:
    """Old files lack preamble and magic; they are taken if they hold what an image must."""
    try:
        dataset = dcmread(path, force=True, stop_before_pixels=header_only)
        whole = all(name in dataset for name in ("Rows", "Columns"))
    except Exception as error:  # as above
        raise DownloadError(f"{path.name}: neither DICOM nor an image ({one_line(error)}). Remove it.") from error
    if not whole:
        raise DownloadError(f"{path.name}: no DICOM file (no preamble, no rows and columns). Remove it.")
    return dataset


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush pydicom, which logs every plugin's traceback; what matters of it is in our own message."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _decode(path: Path, dataset: Dataset, frame: int) -> np.ndarray:
    """Stored values (h, w), or RGB (h, w, 3) where pydicom converts YBR."""
    try:
        _check_frame(path, dataset, frame)
        _complete_meta(dataset)
        # What is stored left of the lowest bits is brought down by `stored_values`, not cut off.
        packed = dataset.file_meta.TransferSyntaxUID.is_compressed
        plugin = _plugin(dataset)
        return np.asarray(pixel_array(dataset, index=frame, decoding_plugin=plugin, correct_unused_bits=packed))
    except (DownloadError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # decoders raise whatever they like; those in Rust panic with a BaseException
        raise DownloadError(
            f"{path.name}: the pixels (transfer syntax {_syntax_name(dataset) or 'unknown'}) can't be decoded: "
            f"{one_line(error)}. If the file is whole, install another decoder (python-gdcm, pyjpegls) or convert it."
        ) from error


def _check_frame(path: Path, dataset: Dataset, frame: int) -> None:
    frames = header_frames(dataset)
    if not 0 <= frame < frames:
        raise DownloadError(f"{path.name}: frame {frame} asked for, the file holds {frames}. Choose one of these.")
    check_size(path.name, int(dataset.get("Columns", 0) or 0), int(dataset.get("Rows", 0) or 0))


def _plugin(dataset: Dataset) -> str:
    """Pillow for grey JPEG of 8 bits, three times as fast as what pydicom tries first; else pydicom's choice."""
    baseline = dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    grey = dataset.get("SamplesPerPixel") == 1 and dataset.get("BitsAllocated") == 8
    return "pillow" if baseline and grey else ""


def _complete_meta(dataset: Dataset) -> None:
    """Without file meta information the encoding in which the header was read is that of the pixels."""
    if getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None) is not None:
        return
    implicit, little = dataset.original_encoding
    meta = FileMetaDataset()
    native = ExplicitVRLittleEndian if little is not False else ExplicitVRBigEndian
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else native
    dataset.file_meta = meta


def _colour(dataset: Dataset, raw: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """RGB in 8 bits; pydicom has converted YBR by now, palettes are applied here."""
    if raw.ndim == 2:
        return _palette(dataset, raw)
    return _scaled(raw[..., :3], int(dataset.get("BitsStored", 0) or raw.dtype.itemsize * 8))


def _palette(dataset: Dataset, raw: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if "RedPaletteColorLookupTableData" not in dataset:  # segmented, or well-known
        rgb = np.asarray(apply_color_lut(raw, dataset))[..., :3]
        return _scaled(rgb, rgb.dtype.itemsize * 8)
    # pydicom takes the entries for little-endian even where the file is big-endian.
    tables = [LookUpTable(dataset, f"{name}PaletteColorLookupTable") for name in ("Red", "Green", "Blue")]
    rgb = np.stack([table.of(raw) for table in tables], axis=-1)
    return to_8_bits(rgb, 0.0, tables[0].top)


def _scaled(rgb: np.ndarray, bits: int) -> UInt8[np.ndarray, "h w 3"]:
    if rgb.dtype == np.uint8 and bits == 8:
        return np.ascontiguousarray(rgb)
    return to_8_bits(rgb.astype(np.float64), 0.0, float(2**bits - 1))


def _spacing(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    measures = functional_group(dataset, frame, "PixelMeasuresSequence")
    for holder, name in ((measures, "PixelSpacing"), (dataset, "PixelSpacing"), (dataset, "ImagerPixelSpacing")):
        if pair := _pair(holder, name):
            return pair
    return None


def _aspect_notes(dataset: Dataset, spacing: tuple[float, float] | None) -> tuple[str, ...]:
    ratio = spacing or _pair(dataset, "PixelAspectRatio")
    if ratio is None or abs(ratio[0] / ratio[1] - 1) <= _SQUARE:
        return ()
    return (f"pixels aren't square ({ratio[0]:g} high, {ratio[1]:g} wide)",)


def _pair(holder: Dataset | None, name: str) -> tuple[float, float] | None:
    value = holder.get(name) if holder is not None else None
    try:
        if value is not None and len(value) == 2 and min(float(value[0]), float(value[1])) > 0:
            return float(value[0]), float(value[1])
    except (TypeError, ValueError):
        return None
    return None


def _syntax_name(dataset: Dataset) -> str:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    return _one_word(syntax.name) if syntax is not None else ""


def _one_word(value: object) -> str:
    """A header's value for a message: damaged ones hold line breaks, and never end."""
    return " ".join(str(value).split())[:100]
