"""DICOM pixels against two renderings that aren't ours: DCMTK's dcmj2pnm and SimpleITK (GDCM).

Stated tolerance, in the 256 grey levels of what is shown: 1 for lossless coding (rounding at the window's ends), 2
where YBR becomes RGB (rounded twice), and for lossy coding a mean of 0.5, as decoders round the inverse cosine
transform and upsample colour differently.
"""

import csv
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from test_dicom import VALUES, write

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import Intensity, Picture
from medfsad_bench.readers.dicom import read_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of faults that are there on purpose
LOSSLESS_LEVELS, YBR_LEVELS, LOSSY_MEAN_LEVELS = 1, 2, 0.5
_LOSSY = ("JPEG Baseline", "JPEG Extended", "Near-Lossless", "JPEG 2000 Image Compression", "High-Throughput JPEG 2000")

# Refused by the reader, with what its message says. Anything else that is refused fails the test.
REFUSED = {
    "minimumdict.xml": "no DICOM file",
    "minimumdict.xml.gz": "no DICOM file",
    "GH220.dcm": "without pixels",
    "GH487.dcm": "without pixels",
    "GH178.dcm": "without pixels",
    "GH179A.dcm": "without pixels",
    "GH179B.dcm": "without pixels",
    "GH626.dcm": "without pixels",
    "GH1146.dcm": "without pixels",  # the element is there and empty
    "GH1339.dcm": "without pixels",
    "priv_SQ.dcm": "without pixels",
    "csa_slice_norm.dcm": "without pixels",
    "Issue1097_FailToOpenDeflatedFileWithSQ.dcm": "without pixels",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "without pixels",
    "GH340.dcm": "Bits Allocated",  # 12 bits packed, retired in 1993
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "header is damaged",
    "genFile.dcm": "can't be decoded",  # its JPEG stream has no start
    # No plugin of pydicom takes these: 1-bit RLE, deflated frames, progressive JPEG, and the 12-bit JPEG of WG04,
    # whose scans end before 63.
    "liver_rle.dcm": "can't be decoded",
    "liver_nonbyte_aligned_rle.dcm": "can't be decoded",
    "liver_deflate.dcm": "can't be decoded",
    "liver_nonbyte_aligned_deflate.dcm": "can't be decoded",
    "CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": "can't be decoded",
    "CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": "can't be decoded",
    "MR3_JPLY": "can't be decoded",
    "MR4_JPLY": "can't be decoded",
    "RG2_JPLY": "can't be decoded",
    "RG3_JPLY": "can't be decoded",
    "XA1_JPLY": "can't be decoded",
}
# Read by us, but not to be compared with DCMTK 3.6.7.
NOT_DCMTK = {
    "GH195.dcm": "the header says RGB, the JPEG stream (JFIF) YCbCr; DCMTK believes the header and shows false colours",
    "GH610.dcm": "a slope of 6e-8, below what DCMTK's arithmetic resolves",
    "rtdose_expb.dcm": "32-bit big-endian, which DCMTK shows without swapping",
    "rtdose_expb_1frame.dcm": "as above",
}
# Nor with SimpleITK 2.5.
NOT_SIMPLEITK = {
    "GH195.dcm": "as above: GDCM believes the header too",
    "rtdose_expb.dcm": "as above: 32-bit big-endian",
    "rtdose_expb_1frame.dcm": "as above",
    "SC_rgb_rle_16bit.dcm": "RLE colour above 8 bits, whose byte planes GDCM mixes up; DCMTK agrees with us",
    "SC_rgb_rle_16bit_2frame.dcm": "as above",
    "SC_rgb_rle_32bit.dcm": "as above",
    "SC_rgb_rle_32bit_2frame.dcm": "as above",
}


@pytest.mark.shared
@pytest.mark.slow
def test_the_awkward_files_are_read_or_refused_as_listed(shared: Path) -> None:
    refusals = {path.name: _refusal(path) for path in _inventory(shared)}
    assert {name: text for name, text in refusals.items() if text and name not in REFUSED} == {}
    for name, reason in REFUSED.items():
        assert name in refusals
        assert reason in refusals[name], f"{name}: {refusals[name]!r}"
    assert len(refusals) - len(REFUSED) >= 140


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="needs DCMTK's dcmj2pnm (apt-get install dcmtk)")
def test_the_awkward_files_look_as_dcmtk_shows_them(shared: Path, tmp_path: Path) -> None:
    compared, wrong = _compare_with_dcmtk(_inventory(shared), tmp_path)
    assert wrong == []
    assert compared >= 100, "DCMTK has no JPEG 2000; the rest must be compared"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="needs DCMTK's dcmj2pnm (apt-get install dcmtk)")
def test_pydicoms_own_files_look_as_dcmtk_shows_them(tmp_path: Path) -> None:
    compared, wrong = _compare_with_dcmtk(_pydicom_files(), tmp_path)
    assert wrong == []
    assert compared >= 40


@pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="needs DCMTK's dcmj2pnm (apt-get install dcmtk)")
def test_odd_headers_look_as_dcmtk_shows_them(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": "500", "WindowWidth": "1000"}
    paths = [
        write(tmp_path / "high.dcm", VALUES << 4, HighBit=15),
        write(tmp_path / "high_windowed.dcm", (VALUES << 2) | 3, HighBit=13, **window),
        write(tmp_path / "high_signed.dcm", ((VALUES.astype(np.int16) - 2048) << 4), HighBit=15, **window),
        write(tmp_path / "eight_of_sixteen.dcm", (VALUES >> 4) << 8, bits=8, HighBit=15),
        write(tmp_path / "slope.dcm", RescaleSlope="0", RescaleIntercept="7", **window),
        write(tmp_path / "slope_alone.dcm", RescaleSlope="0", RescaleIntercept="0"),
        write(tmp_path / "width.dcm", WindowCenter="500", WindowWidth="0"),
        write(tmp_path / "negative_width.dcm", WindowCenter="500", WindowWidth="-5"),
    ]
    compared, wrong = _compare_with_dcmtk(paths, tmp_path)
    assert wrong == []
    assert compared == len(paths)


@pytest.mark.shared
@pytest.mark.slow
def test_the_awkward_files_hold_the_values_that_simpleitk_reads(shared: Path) -> None:
    compared, wrong = _compare_with_simpleitk(_inventory(shared))
    assert wrong == []
    assert compared >= 110


@pytest.mark.slow
def test_pydicoms_own_files_hold_the_values_that_simpleitk_reads() -> None:
    compared, wrong = _compare_with_simpleitk(_pydicom_files())
    assert wrong == []
    assert compared >= 40


def _inventory(shared: Path) -> list[Path]:
    root = shared / "data" / "dicom"
    with (root / "inventory.csv").open(newline="") as file:
        return [root / row["file"] for row in csv.DictReader(file)]


def _pydicom_files() -> list[Path]:
    """Those that lie in the wheel; pydicom would download the others."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return sorted(path for path in folder.rglob("*.dcm") if path.is_file())


def _refusal(path: Path) -> str:
    try:
        read_dicom(path, intensity=Intensity())
    except DownloadError as error:
        return str(error)
    return ""


def _readable(paths: list[Path]) -> Iterator[tuple[Path, Picture]]:
    for path in paths:
        try:
            yield path, read_dicom(path, intensity=Intensity())
        except DownloadError:
            continue


def _compare_with_dcmtk(paths: list[Path], scratch: Path) -> tuple[int, list[str]]:
    compared, wrong = 0, []
    for path, picture in _readable(paths):
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        if path.name in NOT_DCMTK or dataset.get("BitsStored") == 1:  # DCMTK shows 1 bit as 0 and 127
            continue
        theirs = _dcmtk(path, picture, scratch)
        if theirs is not None:
            compared += 1
            wrong += _differences(path, picture, theirs, _padding(path, dataset))
    return compared, wrong


def _dcmtk(path: Path, picture: Picture, scratch: Path) -> np.ndarray | None:
    """What dcmj2pnm shows of the first frame, JPEG-LS being decoded by dcmdjpls before; None where it can't."""
    voi = {"VOI LUT": ["+Wl", "1"], "full range": []}
    options = next((option for start, option in voi.items() if picture.window.startswith(start)), ["+Wi", "1"])
    out, plain = scratch / "x.pnm", scratch / "x.dcm"
    for file in (out, plain):
        file.unlink(missing_ok=True)
    command = ["dcmj2pnm", "-q", "-O", "+F", "1", *(options if picture.window else [])]
    if subprocess.run([*command, str(path), str(out)], capture_output=True, timeout=60, check=False).returncode:
        decoded = subprocess.run(
            ["dcmdjpls", "-q", str(path), str(plain)], capture_output=True, timeout=60, check=False
        )
        if decoded.returncode == 0:
            subprocess.run([*command, str(plain), str(out)], capture_output=True, timeout=60, check=False)
    if not out.is_file():
        return None
    with Image.open(out) as image:
        return np.asarray(image)


def _compare_with_simpleitk(paths: list[Path]) -> tuple[int, list[str]]:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    compared, wrong = 0, []
    for path, picture in _readable(paths):
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        palette = "PALETTE" in str(dataset.get("PhotometricInterpretation"))
        if path.name in NOT_SIMPLEITK or palette or "VOI LUT" in picture.window or "ModalityLUTSequence" in dataset:
            continue  # it applies no palette and no table
        try:
            values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        except RuntimeError:
            continue
        theirs = _rendered(values, picture, dataset)
        compared += 1
        wrong += _differences(path, picture, theirs, _padding(path, dataset))
    return compared, wrong


def _rendered(values: np.ndarray, picture: Picture, dataset: pydicom.Dataset) -> np.ndarray:
    """PS3.3 C.11.2.1 in pseudo-code's own words, on values that another library decoded and rescaled."""
    if values.shape[-1] == 3 and picture.window == "":
        frame = values.reshape(-1, *picture.pixels.shape[:2], 3)[0].astype(float)
        return np.rint(frame / (2.0 ** int(dataset.BitsStored) - 1) * 255)
    x = values.reshape(-1, *picture.pixels.shape)[0].astype(float)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    if inverted and (dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)) == (
        1,
        0,
    ):  # GDCM has inverted the stored values by now: undo that
        x = 2.0 ** int(dataset.BitsStored) - 1 - x
    kind, first, second = re.match(r"(.+) (\S+)/(\S+)$", picture.window).groups()  # type: ignore[union-attr]
    c, w = float(first), float(second)
    if kind == "SIGMOID":
        y = 255 / (1 + np.exp(-4 * (x - c) / w))
    elif kind == "LINEAR_EXACT":
        y = np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, 255, ((x - c) / w + 0.5) * 255))
    elif kind == "LINEAR":
        inside = ((x - (c - 0.5)) / max(w - 1, 1e-9) + 0.5) * 255
        y = np.where(x <= c - 0.5 - (w - 1) / 2, 0, np.where(x > c - 0.5 + (w - 1) / 2, 255, inside))
    else:
        y = np.clip((x - c) / (w - c) * 255, 0, 255)  # full range low/high
    return 255 - y if inverted else y


def _padding(path: Path, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Pixels that we show black by PixelPaddingValue and the others don't."""
    if dataset.get("PixelPaddingValue") is None:
        return None
    raw = np.asarray(pydicom.dcmread(path, force=True).pixel_array)
    return np.asarray((raw[0] if int(dataset.get("NumberOfFrames") or 1) > 1 else raw) == dataset.PixelPaddingValue)


def _differences(path: Path, picture: Picture, theirs: np.ndarray, padding: np.ndarray | None) -> list[str]:
    ours = picture.pixels.astype(float)
    if theirs.ndim == 3 and ours.ndim == 2:
        ours = np.repeat(ours[..., None], 3, axis=2)
    if theirs.shape != ours.shape:
        return [f"{path.name}: {theirs.shape}, ours {ours.shape}"]
    difference = np.abs(ours - theirs)
    if padding is not None:
        difference = difference[~padding]
    lossy = any(name in picture.transfer_syntax for name in _LOSSY) and "Lossless Only" not in picture.transfer_syntax
    exact = YBR_LEVELS if "ybr" in path.name else LOSSLESS_LEVELS
    if (difference.mean() > LOSSY_MEAN_LEVELS) if lossy else (difference.max() > exact):
        return [f"{path.name}: up to {difference.max():.1f}, mean {difference.mean():.2f} ({picture.transfer_syntax})"]
    return []
