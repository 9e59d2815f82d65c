"""The grey-scale pipeline of DICOM: modality LUT, then VOI LUT or window, then presentation (PS3.4 N.2).

Stored values are integers of few bits, so the pipeline is worked out once per value and not once per pixel: a table of
8-bit results, exactly what the same arithmetic on the whole picture gives.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from pydicom import Dataset

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import Intensity, Picture, stated_range, to_8_bits, unused_bits_note

_TABLE = 2**16  # values beyond which a table costs more than it saves


def shown_grey(name: str, dataset: Dataset, raw: np.ndarray, intensity: Intensity, *, frame: int) -> Picture:
    """What a viewer shows of one frame of stored grey values, and what mapped them.

    Rescaled (Rescale Slope and Intercept or Modality LUT, of the frame where it has its own), windowed by the first VOI
    LUT or window (or by the manifest's), MONOCHROME1 inverted, padding black. A slope of 0 and a window without width
    are ignored, as DCMTK does. Where PresentationLUTShape contradicts PhotometricInterpretation, the latter holds.

    Args:
        name: The file's, for messages.
        dataset: Its header.
        raw: (h, w), integer or floating point.
        intensity: How values become 8 bits.
        frame: From 0; enhanced objects state rescale and window frame by frame.

    Raises:
        DownloadError: If floating-point values have no window, or LUT and window contradict the pixels.
    """
    stored = stored_values(dataset, raw)
    entries, index = _table(stored)
    modality = _Modality(dataset, frame)
    physical = modality.of(entries)
    # Percentiles are taken over the pixels, not over the values that occur.
    of_pixels = physical if index is None or intensity.mapping != "percentiles" else physical[index]
    if intensity.mapping == "percentiles" and (ends := _padding(dataset)):
        of_pixels = of_pixels[(stored < ends[0]) | (stored > ends[1])]
    values, low, high, window, notes = _windowed(name, dataset, physical, of_pixels, intensity, frame)
    if window.startswith("full range") and is_unwindowed(dataset):
        notes += unused_bits_note(physical, (low, high))
    pixels = to_8_bits(values, low, high)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = 255 - pixels
    if ends := _padding(dataset):
        pixels = np.where((entries >= ends[0]) & (entries <= ends[1]), np.uint8(0), pixels)
    if index is not None:
        same = stored.dtype == np.uint8 and np.array_equal(pixels, entries)
        pixels = stored if same else np.take(pixels, index)
    return Picture(pixels, window=window, warnings=modality.notes + notes + _shape_notes(dataset))


def physical_values(dataset: Dataset, raw: np.ndarray, frame: int) -> Float[np.ndarray, "h w"]:
    """Values after the modality transformation."""
    return _Modality(dataset, frame).of(stored_values(dataset, raw))


def is_unwindowed(dataset: Dataset) -> bool:
    """Whether grey pixels have no window, and as many bits stored as allocated, of which few may be in use."""
    grey = str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
    bits = int(dataset.get("BitsStored", 0) or 0)
    windowed = bool(dataset.get("VOILUTSequence")) or _window(dataset, 0)[0] is not None
    return grey and bits >= 16 and bits == dataset.get("BitsAllocated") and not windowed


def functional_group(dataset: Dataset, frame: int, sequence: str) -> Dataset | None:
    """The macro of an enhanced object that holds for a frame: its own, or the one that all share (PS3.3 C.7.6.16)."""
    own, shared = dataset.get("PerFrameFunctionalGroupsSequence"), dataset.get("SharedFunctionalGroupsSequence")
    for groups in (own[frame : frame + 1] if own else (), shared[:1] if shared else ()):
        for group in groups:
            if macro := group.get(sequence):
                return macro[0]
    return None


def stored_values(dataset: Dataset, raw: np.ndarray) -> np.ndarray:
    """The BitsStored bits that end at HighBit; above them may be overlays or rubbish (retired PS3.5 8.1.1).

    Args:
        dataset: The header.
        raw: Words as they are in the file, or what a decoder made of compressed ones.
    """
    if raw.dtype.kind == "f":
        return raw
    allocated, bits = raw.dtype.itemsize * 8, int(dataset.get("BitsStored", 0) or 0)
    below = int(dataset.get("HighBit", bits - 1) or 0) + 1 - bits  # unused bits below the stored ones
    meta = getattr(dataset, "file_meta", None)
    native = meta is None or not meta.TransferSyntaxUID.is_compressed
    shifted = native and below > 0 and bits + below <= allocated
    if not 0 < bits < allocated or (not shifted and _within(raw, bits)):
        return raw
    left = np.left_shift(raw, allocated - bits - (below if shifted else 0))
    return np.right_shift(left, allocated - bits)  # arithmetic where signed


def _within(raw: np.ndarray, bits: int) -> bool:
    low, high = _bounds(bits, signed=raw.dtype.kind == "i")
    return raw.size == 0 or (int(raw.min()) >= low and int(raw.max()) <= high)


def _table(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Values that may occur, and each pixel's index among them; without a table the pixels themselves and None."""
    if stored.dtype.kind == "f" or not stored.size:
        return stored, None
    lowest, highest = (0, 255) if stored.dtype == np.uint8 else (int(stored.min()), int(stored.max()))
    if highest - lowest >= _TABLE:
        return stored, None
    first = min(lowest, 0)
    return np.arange(first, highest + 1), stored if first == 0 else stored.astype(np.int32) - first


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None or isinstance(value, (bytes, str)):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = (int(value), int(value) if limit is None or isinstance(limit, (bytes, str)) else int(limit))
    return min(ends), max(ends)


_Windowed = tuple[np.ndarray, float, float, str, tuple[str, ...]]


def _windowed(
    name: str, dataset: Dataset, values: np.ndarray, of_pixels: np.ndarray, intensity: Intensity, frame: int
) -> _Windowed:
    if intensity.mapping != "display":
        low, high, notes = stated_range(name, of_pixels, intensity)
        sign = " =" if intensity.mapping == "percentiles" else ""
        return values, low, high, f"{intensity.mapping}{sign} {low:g}/{high:g}", notes
    if tables := dataset.get("VOILUTSequence"):
        lut, notes = LookUpTable(tables[0]), _first_of(len(tables), "LUTs")
        return lut.of(values), 0.0, float(2**lut.bits - 1), f"VOI LUT of {lut.bits} bits", notes
    window, notes = _window(dataset, frame)
    if window is not None:
        centre, width, function = window
        return *_voi(name, values, centre, width, function), f"{function} {centre:g}/{width:g}", notes
    if values.dtype.kind == "f" and "PixelData" not in dataset:
        raise DownloadError(
            f"{name}: floating-point pixels without a window. Expected a window in the header, or a manifest with "
            "mapping = 'window' or 'percentiles'."
        )
    if intensity.low is not None and intensity.high is not None and is_unwindowed(dataset):
        return values, intensity.low, intensity.high, f"range in use {intensity.low:g}/{intensity.high:g}", notes
    low, high = _stored_range(dataset, frame)
    return values, low, high, f"full range {low:g}/{high:g}", notes


def _window(dataset: Dataset, frame: int) -> tuple[tuple[float, float, str] | None, tuple[str, ...]]:
    """Centre, width and function of the first window, None where there is none of use, and notes."""
    holder = functional_group(dataset, frame, "FrameVOILUTSequence") or dataset
    centres, widths = _numbers(holder.get("WindowCenter")), _numbers(holder.get("WindowWidth"))
    if not centres or not widths:
        return None, ()
    centre, width, function = centres[0], widths[0], str(holder.get("VOILUTFunction", "LINEAR") or "LINEAR")
    if width < (1 if function == "LINEAR" else 1e-9):
        return None, (f"window without width ignored: PS3.3 C.11.2.1.2 allows none below 1 ({width:g})",)
    return (centre, width, function), _first_of(len(centres), "windows")


def _shape_notes(dataset: Dataset) -> tuple[str, ...]:
    """PS3.3 C.11.6: MONOCHROME1 goes with INVERSE, MONOCHROME2 with IDENTITY; where not, viewers differ."""
    kind, shape = str(dataset.get("PhotometricInterpretation", "")), str(dataset.get("PresentationLUTShape", "") or "")
    if (kind, shape) not in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        return ()
    return (f"PresentationLUTShape contradicts PhotometricInterpretation, which was followed ({shape}, {kind})",)


def _first_of(count: int, what: str) -> tuple[str, ...]:
    return (f"first of {count} {what} taken",) if count > 1 else ()


def _numbers(value: object) -> list[float]:
    if value is None or value == "":
        return []
    items: Sequence[object] = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    return [float(str(item)) for item in items if item is not None and str(item).strip()]


def _voi(name: str, values: np.ndarray, centre: float, width: float, function: str) -> tuple[np.ndarray, float, float]:
    """VOI functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, as values between a low and a high end."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), 0.0, 1.0
    if function == "LINEAR_EXACT":
        return values, centre - width / 2, centre + width / 2
    if function != "LINEAR":
        raise DownloadError(f"{name}: the VOI LUT function is {function!r}. Expected LINEAR, LINEAR_EXACT or SIGMOID.")
    return values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _stored_range(dataset: Dataset, frame: int) -> tuple[float, float]:
    """The range that BitsStored allows, after the modality transformation."""
    bits, signed = int(dataset.get("BitsStored", 8)), int(dataset.get("PixelRepresentation", 0) or 0)
    modality = _Modality(dataset, frame)
    if modality.lut is not None:
        return 0.0, float(2**modality.lut.bits - 1)
    ends = modality.of(np.array(_bounds(bits, signed=bool(signed)), np.int64))
    return float(ends.min()), float(ends.max())


def _bounds(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


class _Modality:
    """From stored to physical values: Modality LUT, or Rescale Slope and Intercept of the frame or of the file."""

    def __init__(self, dataset: Dataset, frame: int) -> None:
        tables = dataset.get("ModalityLUTSequence")
        self.lut = LookUpTable(tables[0]) if tables else None
        holder = functional_group(dataset, frame, "PixelValueTransformationSequence") or dataset
        slope, intercept = _numbers(holder.get("RescaleSlope")), _numbers(holder.get("RescaleIntercept"))
        self._line = (slope[0], intercept[0]) if slope and intercept and slope[0] != 0 else (1.0, 0.0)
        ignored = self.lut is None and bool(slope) and slope[0] == 0
        self.notes = ("rescale slope of 0 ignored, and the intercept with it",) if ignored else ()

    def of(self, stored: np.ndarray) -> Float[np.ndarray, "*shape"]:
        if self.lut is not None:
            return self.lut.of(stored)
        slope, intercept = self._line
        return np.asarray(stored, np.float64) * slope + intercept


class LookUpTable:
    """A look-up table of PS3.3 C.11.1.1.1 and C.7.6.3.1.5: entries, the first value mapped, bits per entry.

    Raises:
        ValueError: If it holds fewer entries than it promises.
    """

    def __init__(self, item: Dataset, prefix: str = "LUT") -> None:
        count, first, bits = (int(value) for value in item[f"{prefix}Descriptor"].value)
        count = count or 2**16
        entries = item[f"{prefix}Data"].value
        narrow = isinstance(entries, bytes) and len(entries) < 2 * count  # 8-bit entries, whatever `bits` says
        if isinstance(entries, bytes):
            entries = np.frombuffer(entries[: len(entries) // 2 * 2], np.dtype(np.uint8) if narrow else _words(item))
        self.entries = np.atleast_1d(np.asarray(entries)).astype(np.float64)[:count]
        if len(self.entries) < count:
            msg = f"its LUT promises {count} entries and holds {len(self.entries)}"
            raise ValueError(msg)
        self.bits, self._first = bits, first
        self.top = 255.0 if narrow else float(2**bits - 1)

    def of(self, values: np.ndarray) -> Float[np.ndarray, "*shape"]:
        """Entries of `values`; those below or beyond the table take its first or last."""
        first = self._first
        if first >= 2**15 and values.size and values.min() < 0:  # written as US where SS was meant
            first -= 2**16
        index = np.clip(np.rint(np.asarray(values, np.float64)).astype(np.int64) - first, 0, len(self.entries) - 1)
        return self.entries[index]


def _words(item: Dataset) -> np.dtype:
    return np.dtype(">u2" if item.original_encoding[1] is False else "<u2")
