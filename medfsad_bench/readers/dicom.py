"""DICOM: modality LUT, then VOI LUT, then photometric interpretation (PS3.4 N.2), through pydicom and its plugins."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from medfsad_bench.errors import SourceError
from medfsad_bench.readers.picture import Intensity, Picture, grey_if_equal, percentile_range, to_8_bits


def read_dicom(path: Path, *, intensity: Intensity, frame: int = 0) -> Picture:
    """Read one frame as a person sees it.

    Grey: rescaled (Rescale Slope and Intercept or Modality LUT), windowed by the file's first VOI LUT or window (or by
    the manifest's), padding black, MONOCHROME1 inverted. Colour: converted to RGB.

    Raises:
        SourceError: If it isn't DICOM, has no pixels, or can't be decoded.
    """
    dataset = _open(path)
    notes: list[str] = []
    raw = _decode(path, dataset, frame)
    if raw.ndim == 3:
        pixels = grey_if_equal(_colour(raw))
        window = ""
    else:
        pixels, window = _grey(path, dataset, raw, intensity, notes)
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    return Picture(
        pixels=pixels,
        spacing_mm=_spacing(dataset),
        window=window,
        transfer_syntax=syntax.name if syntax is not None else "",
        patient=str(dataset.get("PatientID", "") or ""),
        warnings=tuple(notes),
    )


def _open(path: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset: Dataset = dcmread(path)
    except InvalidDicomError:
        dataset = _forced(path)
    except Exception as error:  # a damaged header fails in as many ways as there are value representations
        raise SourceError(f"{path.name}: the DICOM header is damaged ({error}). Download it again.") from error
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = dataset.get("Modality", "") or dataset.get("SOPClassUID", "")
        raise SourceError(f"{path.name}: a DICOM file without pixels ({kind or 'of no stated kind'}). Leave it out.")
    return dataset


def _forced(path: Path) -> Dataset:
    """Old files lack preamble and magic; they are taken if they hold what an image must."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path, force=True)
            whole = all(name in dataset for name in ("Rows", "Columns", "PixelData"))
    except Exception as error:  # as above
        raise SourceError(f"{path.name}: neither DICOM nor an image ({error}). Remove it.") from error
    if not whole:
        raise SourceError(f"{path.name}: no DICOM file (no preamble, no rows and columns). Remove it.")
    return dataset


def _decode(path: Path, dataset: Dataset, frame: int) -> np.ndarray:
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if not 0 <= frame < frames:
        raise SourceError(f"{path.name}: frame {frame} asked for, the file holds {frames}. Choose one of these.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None) is None:
                values = np.asarray(dataset.pixel_array)
                return values[frame] if frames > 1 else values
            return np.asarray(pixel_array(dataset, index=frame))
    except Exception as error:  # decoders raise whatever they like
        name = getattr(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None), "name", "unknown")
        raise SourceError(
            f"{path.name}: the pixels (transfer syntax {name}) can't be decoded: {str(error).splitlines()[0]}. If "
            "the file is whole, install another decoder (python-gdcm, pyjpegls) or convert it."
        ) from error


def _grey(
    path: Path, dataset: Dataset, raw: np.ndarray, intensity: Intensity, notes: list[str]
) -> tuple[np.ndarray, str]:
    try:
        values = np.asarray(apply_modality_lut(raw, dataset), np.float64)
        values, low, high, window = _windowed(path, dataset, raw, values, intensity, notes)
    except SourceError:
        raise
    except Exception as error:  # contradictory LUTs and windows
        raise SourceError(f"{path.name}: the rescale or window is damaged ({error}). Download it again.") from error
    pixels = to_8_bits(values, low, high)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = 255 - pixels
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        pixels = np.where(raw == padding, np.uint8(0), pixels)
    return pixels, window


def _windowed(
    path: Path,
    dataset: Dataset,
    raw: np.ndarray,
    values: Float[np.ndarray, "h w"],
    intensity: Intensity,
    notes: list[str],
) -> tuple[np.ndarray, float, float, str]:
    if intensity.mapping == "window":
        if intensity.low is None or intensity.high is None:
            raise SourceError(f"{path.name}: mapping = 'window' needs low and high. Set both in the manifest.")
        return values, intensity.low, intensity.high, f"window {intensity.low:g}/{intensity.high:g}"
    if intensity.mapping == "percentiles":
        low, high = percentile_range(values, intensity)
        return values, low, high, f"percentiles = {low:g}/{high:g}"
    if dataset.get("VOILUTSequence"):
        shown = np.asarray(apply_voi_lut(values.astype(raw.dtype), dataset, index=0, prefer_lut=True), np.float64)
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return shown, 0.0, float(2**bits - 1), f"VOI LUT of {bits} bits"
    centres = np.atleast_1d(np.asarray(dataset.get("WindowCenter", []) or [], np.float64))
    widths = np.atleast_1d(np.asarray(dataset.get("WindowWidth", []) or [], np.float64))
    if len(centres) and len(widths):
        if len(centres) > 1:
            notes.append(f"first of {len(centres)} windows taken")
        function = str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR")
        return (
            *_voi(values, float(centres[0]), float(widths[0]), function),
            f"{function} {centres[0]:g}/{widths[0]:g}",
        )
    low, high = _stored_range(dataset)
    return values, low, high, f"full range {low:g}/{high:g}"


def _voi(values: np.ndarray, centre: float, width: float, function: str) -> tuple[np.ndarray, float, float]:
    """VOI functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, as values between a low and a high end."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), 0.0, 1.0
    if function == "LINEAR_EXACT":
        return values, centre - width / 2, centre + width / 2
    return values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _stored_range(dataset: Dataset) -> tuple[float, float]:
    """The range that BitsStored allows, after the modality transformation."""
    bits, signed = int(dataset.get("BitsStored", 8)), int(dataset.get("PixelRepresentation", 0) or 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ends = np.asarray(apply_modality_lut(np.array([low, high], np.int64), dataset), np.float64)
    return float(ends.min()), float(ends.max())


def _colour(raw: np.ndarray) -> np.ndarray:
    """RGB in 8 bits; pydicom has converted YBR and palette by now."""
    if raw.dtype == np.uint8:
        return np.ascontiguousarray(raw[..., :3])
    return to_8_bits(raw[..., :3].astype(np.float64), 0.0, float(np.iinfo(raw.dtype).max))


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        value = dataset.get(name)
        try:
            if value is not None and len(value) == 2:
                return float(value[0]), float(value[1])
        except (TypeError, ValueError):
            continue
    return None
