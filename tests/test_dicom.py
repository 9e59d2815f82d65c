"""DICOM's grey-scale pipeline on hand-worked files: what each attribute does to the pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers import Intensity, read_picture

VALUES = np.array([[0, 100, 200, 300], [1000, 2000, 3000, 4095]], np.uint16)


def write(
    path: Path, stored: np.ndarray = VALUES, *, bits: int = 12, syntax: str = ExplicitVRLittleEndian, **fields: Any
) -> Path:
    """A secondary capture of `stored` with further attributes by keyword."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, UID("1.2.3")
    frames = stored.ndim == 3 and stored.shape[2] != 3
    dataset.Rows, dataset.Columns = stored.shape[1:3] if frames else stored.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if frames:
        dataset.NumberOfFrames = len(stored)
    elif stored.ndim == 3:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in fields.items():
        setattr(dataset, name, value)
    if big:
        dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    else:
        dataset.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path, **options: Any) -> list[Any]:
    return read_picture(path, **options).pixels.tolist()


def test_without_a_window_the_range_of_bits_stored_is_shown(tmp_path: Path) -> None:
    expected = [[0, 6, 12, 19], [62, 125, 187, 255]]  # 255 v / 4095, rounded
    assert grey(write(tmp_path / "a.dcm")) == expected
    assert grey(write(tmp_path / "b.dcm", syntax=ImplicitVRLittleEndian)) == expected
    assert grey(write(tmp_path / "c.dcm", syntax=ExplicitVRBigEndian)) == expected


def test_monochrome1_is_inverted_and_padding_stays_black(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert grey(path) == [[0, 249, 243, 236], [193, 130, 68, 0]]
    path = write(
        tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0, PixelPaddingRangeLimit=200
    )
    assert grey(path)[0] == [0, 0, 0, 236]


def test_windows_follow_rescale_and_the_first_is_taken(tmp_path: Path) -> None:
    picture = read_picture(
        write(
            tmp_path / "a.dcm",
            RescaleSlope="2",
            RescaleIntercept="-100",
            WindowCenter=["300", "7"],
            WindowWidth=["401", "9"],
        )
    )
    # rescaled -100, 100, 300, 500, …; LINEAR shows 99.5 … 499.5
    assert picture.pixels.tolist()[0] == [0, 0, 128, 255]
    assert picture.window == "LINEAR 300/401"
    assert picture.warnings == ("first of 2 windows taken",)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", [0, 63, 128, 192]),  # (v - 0.5) / 399 of 255
        ("LINEAR_EXACT", [0, 64, 128, 191]),  # v / 400 of 255
        ("SIGMOID", [30, 69, 128, 186]),  # 255 / (1 + exp(-4 (v - 200) / 400))
    ],
)
def test_the_three_voi_functions(tmp_path: Path, function: str, expected: list[int]) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter="200", WindowWidth="400", VOILUTFunction=function)
    assert grey(path)[0] == pytest.approx(expected, abs=1)


def test_a_window_without_width_is_no_window(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.dcm", WindowCenter="0", WindowWidth="0"))
    assert picture.window == "full range 0/4095"
    assert "ignored" in picture.warnings[0]


def test_tables_are_applied_with_their_first_value(tmp_path: Path) -> None:
    def table(descriptor: list[int], entries: list[int]) -> Sequence:
        item = Dataset()
        item.add_new(0x00283002, "US", descriptor)
        item.add_new(0x00283006, "US", entries)
        return Sequence([item])

    stored = np.array([[0, 10, 11, 12, 13, 99]], np.uint16)
    voi = write(tmp_path / "a.dcm", stored, VOILUTSequence=table([4, 10, 8], [0, 85, 170, 255]))
    assert grey(voi) == [[0, 0, 85, 170, 255, 255]]
    modality = write(tmp_path / "b.dcm", stored, ModalityLUTSequence=table([4, 10, 8], [255, 170, 85, 0]))
    assert grey(modality) == [[255, 255, 170, 85, 0, 0]]


def test_bits_above_bits_stored_are_left_out(tmp_path: Path) -> None:
    """Old files keep overlays there."""
    assert grey(write(tmp_path / "a.dcm", VALUES | 0xF000)) == grey(write(tmp_path / "b.dcm"))
    signed = np.array([[-2048, -1, 0, 2047]], np.int16)
    polluted = (signed.view(np.uint16) & 0x0FFF | 0x3000).view(np.int16)
    assert grey(write(tmp_path / "c.dcm", polluted)) == grey(write(tmp_path / "d.dcm", signed)) == [[0, 127, 128, 255]]


def test_a_frame_has_its_own_window_and_rescale(tmp_path: Path) -> None:
    def group(centre: int, slope: int) -> Dataset:
        voi, values, frame = Dataset(), Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = str(centre), "201"
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = str(slope), "0", "US"
        frame.FrameVOILUTSequence, frame.PixelValueTransformationSequence = Sequence([voi]), Sequence([values])
        return frame

    path = write(
        tmp_path / "a.dcm",
        np.stack([VALUES, VALUES]),
        PerFrameFunctionalGroupsSequence=Sequence([group(100, 1), group(300, 2)]),
    )
    assert grey(path, frame=0)[0] == [1, 128, 255, 255]
    assert grey(path, frame=1)[0] == [0, 1, 255, 255]
    with pytest.raises(DownloadError, match="frame 2 asked for, the file holds 2"):
        read_picture(path, frame=2)


def test_colour_of_more_than_eight_bits_is_scaled_by_bits_stored(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 3), np.uint16)
    rgb[0, 0] = (1023, 512, 0)
    assert grey(write(tmp_path / "a.dcm", rgb, bits=10))[0][0] == [255, 128, 0]


def test_files_without_preamble_or_meta_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", syntax=ImplicitVRLittleEndian)
    whole = path.read_bytes()
    meta_length = 12 + int.from_bytes(whole[140:144], "little")
    (tmp_path / "no_preamble.dcm").write_bytes(whole[132:])
    (tmp_path / "no_meta.dcm").write_bytes(whole[132 + meta_length :])
    assert grey(tmp_path / "no_preamble.dcm") == grey(path)
    assert grey(tmp_path / "no_meta.dcm") == grey(path)


@pytest.mark.parametrize("kept", [0, 60, 131, 200, 0.9])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "a.dcm", np.tile(VALUES, (40, 1)))
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(DownloadError, match=r"^a\.dcm: ") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_pixels_that_are_not_square_are_noted_with_their_size(tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "a.dcm", PixelSpacing=["0.5", "0.25"]))
    assert picture.spacing_mm == (0.5, 0.25)
    assert picture.warnings == ("pixels aren't square (0.5 high, 0.25 wide)",)
    assert "2 high, 1 wide" in read_picture(write(tmp_path / "b.dcm", PixelAspectRatio=["2", "1"])).warnings[0]


def test_an_image_larger_than_any_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", Rows=60000, Columns=60000)
    with pytest.raises(DownloadError, match="more than 100,000,000 pixels"):
        read_picture(path)


def test_tags_that_bear_personal_data_are_named_and_never_quoted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.dcm",
        PatientName="Doe^Jane",
        PatientID="7",
        InstitutionName="St Elsewhere",
        BurnedInAnnotation="YES",
    )
    notes = read_picture(path).privacy
    assert notes == ("PatientName", "InstitutionName", "burned-in text (BurnedInAnnotation)")
    pseudonym = write(tmp_path / "b.dcm", PatientName="7", PatientID="7")
    removed = write(tmp_path / "c.dcm", PatientName="Doe^Jane", PatientIdentityRemoved="YES")
    assert read_picture(pseudonym).privacy == read_picture(removed).privacy == ()


def test_a_window_of_the_manifest_goes_before_the_file_s(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter="1", WindowWidth="2")
    assert grey(path, intensity=Intensity("window", 0, 400))[0] == [0, 64, 128, 191]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("signed", [False, True])
def test_values_below_a_higher_high_bit_are_shifted(tmp_path: Path, bits: int, *, signed: bool) -> None:
    """Retired PS3.5 8.1.1: BitsStored ends at HighBit. Reference: the same values right-justified."""
    span = 2**bits
    values = (
        np.linspace(-span // 2, span // 2 - 1, 24).astype(np.int16)
        if signed
        else (np.linspace(0, span - 1, 24).astype(np.uint16))
    )
    values = values.reshape(4, 6)
    plain = write(tmp_path / "plain.dcm", values, bits=bits)
    for high in range(bits - 1, 16):
        shift = high + 1 - bits
        rubbish = (1 << shift) - 1  # what lies below the lowest bit
        moved = ((values.astype(np.int64) << shift) | rubbish).astype(np.uint16).view(values.dtype)
        path = write(tmp_path / "moved.dcm", moved, bits=bits, HighBit=high)
        assert grey(path) == grey(plain), high


def test_a_slope_of_zero_is_ignored_with_its_intercept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RescaleSlope="0", RescaleIntercept="7", WindowCenter="500", WindowWidth="1000")
    picture = read_picture(path)
    assert picture.pixels.tolist() == grey(write(tmp_path / "b.dcm", WindowCenter="500", WindowWidth="1000"))
    assert picture.warnings == ("rescale slope of 0 ignored, and the intercept with it",)


@pytest.mark.parametrize(
    ("photometric", "shape", "noted"),
    [
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_a_presentation_shape_that_contradicts_is_noted_and_not_followed(
    tmp_path: Path, photometric: str, shape: str, *, noted: bool
) -> None:
    path = write(tmp_path / "a.dcm", PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    picture = read_picture(path)
    assert picture.pixels.tolist() == grey(write(tmp_path / "b.dcm", PhotometricInterpretation=photometric))
    assert bool(picture.warnings) == noted


@pytest.mark.parametrize(("stored", "allocated"), [(12, 16), (16, 16)])
def test_few_used_bits_are_noted_where_the_header_leaves_them_open(tmp_path: Path, stored: int, allocated: int) -> None:
    picture = read_picture(write(tmp_path / "a.dcm", VALUES // (1 if stored == 16 else 8), bits=stored))
    assert bool(picture.warnings) == (stored == allocated)
    windowed = read_picture(write(tmp_path / "b.dcm", bits=16, WindowCenter="2048", WindowWidth="4096"))
    assert windowed.warnings == ()


def test_padding_stays_out_of_the_percentiles(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[1, 3] = 4000
    path = write(tmp_path / "a.dcm", values, PixelPaddingValue=4000)
    picture = read_picture(path, intensity=Intensity("percentiles", 0, 100))
    assert picture.window == "percentiles = 100/3000"
