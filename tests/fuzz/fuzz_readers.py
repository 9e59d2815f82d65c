"""Feed damaged real files to the readers: each ends in a good image or in a refusal of one line.

A child process reads them, so that a crash, a hang or a flood of memory costs one input and is counted:

    python tests/fuzz/fuzz_readers.py --inputs 6000 [--seed 0] [--shared ../shared]

Exit status 1 if any input crashed the child, took more than 20 s of a processor or 2 GiB, said nothing for a minute, or
raised anything but DownloadError.
"""

import argparse
import json
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

LIMIT_S, LIMIT_MIB, LARGEST = 20, 2048, 400_000
_EXTREMES = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")
_PATCHES = ((0, 0, 64), (100, 80, 64))
KINDS = ("flip", "cut", "drop", "repeat", "zero", "extreme", "splice", "insert")


def mutated(content: bytes, rng: np.random.Generator, *, other: bytes = b"") -> bytes:
    """A damaged copy of `content`: one to four faults, more often near the start, where headers are.

    Args:
        content: Of a real file.
        rng: Draws kinds and places.
        other: Another file, of which a part may be spliced in.
    """
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if data:
            data = _fault(data, str(rng.choice(KINDS)), rng, other)
    return bytes(data)


def _fault(data: bytearray, kind: str, rng: np.random.Generator, other: bytes) -> bytearray:
    start = int(len(data) * float(rng.random()) ** (3 if rng.random() < 0.6 else 1))
    length = min(len(data) - start, 1 + int(rng.integers(1, 300)))
    part = data[start : start + length]
    if kind == "flip":
        data[start] ^= int(rng.integers(1, 256))
    elif kind == "cut":
        del data[start:]
    elif kind == "drop":
        del data[start : start + length]
    elif kind == "repeat":
        data[start:start] = part * int(rng.integers(1, 6))
    elif kind == "zero":
        data[start : start + length] = bytes(length)
    elif kind == "extreme":
        data[start : start + 4] = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    elif kind == "splice" and other:
        where = int(rng.integers(len(other)))
        data[start : start + length] = other[where : where + length]
    elif kind == "insert":
        data[start:start] = rng.bytes(length)
    return data


def seeds(shared: Path | None) -> list[tuple[str, bytes]]:
    """Real files by name: pydicom's own, the shared folder's, and a raster of every kind that Pillow writes."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = [path for path in folder.rglob("*.dcm") if path.is_file()]
    if shared is not None:
        paths += [path for path in (shared / "data" / "dicom").rglob("*") if path.is_file()]
        paths += [path for path in (shared / "data" / "nifti").rglob("*.nii*") if path.is_file()]
        paths += sorted((shared / "data" / "brain_tumor" / "Testing" / "glioma").glob("*.jpg"))[:10]
        paths += sorted((shared / "data" / "lgg").rglob("*.tif"))[:10]
        paths += sorted((shared / "data" / "chest_nih_1024").rglob("*.png"))[:4]
    files = [(path.name, path.read_bytes()) for path in sorted(paths) if 0 < path.stat().st_size <= LARGEST]
    return files + generated() + large_forms()


def generated() -> list[tuple[str, bytes]]:
    """Small rasters of all modes and forms, and NIfTI volumes."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    files = []
    for form in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"):
        for mode in ("L", "RGB", "P", "RGBA", "CMYK", "I;16"):
            image = (
                Image.fromarray(rng.integers(0, 65536, (40, 50), np.uint16)) if mode == "I;16" else colour.convert(mode)
            )
            buffer = BytesIO()
            try:
                image.save(buffer, form)
            except (OSError, ValueError):
                continue
            files.append((f"a.{form.lower()}", buffer.getvalue()))
    kinds: tuple[Any, ...] = (nib.nifti1.Nifti1Image, nib.nifti2.Nifti2Image)
    for kind in kinds:
        values = rng.integers(0, 900, (12, 13, 7)).astype(np.int16)
        volume = kind(values, np.diag([2.0, 2.0, 3.0, 1.0]))
        files.append(("a.nii", volume.to_bytes()))
    return files


def large_forms() -> list[tuple[str, bytes]]:
    """Forms whose headers promise much: tiled and pyramid TIFF, whole slides, JPEG 2000, multi-frame DICOM."""
    rng = np.random.default_rng(1)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((192, 160)))
    files = []
    for compression in (None, "deflate", "lzw", "jpeg"):
        for number, values in enumerate((pixels, pixels[:, :, 0], pixels[:, :, 0].astype(np.uint16) * 250)):
            if compression != "jpeg" or values.dtype == np.uint8:
                files.append(("tiled.tif", _tiff([values], tile=(64, 64), compression=compression)))
                files.append(("stack.tif", _tiff([values] * 3, compression=compression, bigtiff=number == 1)))
    levels = [pixels, pixels[::2, ::2], pixels[::4, ::4]]
    for compression, bigtiff in (("jpeg", False), ("deflate", True)):
        content = _tiff(levels, tile=(32, 32), pyramid=True, compression=compression, bigtiff=bigtiff)
        files += [("pyramid.tif", content), ("normal_001.slide.tif", content)]
    codestreams = {}
    forms: tuple[tuple[str, dict[str, Any]], ...] = (
        ("jp2", {}),
        ("j2k", {"no_jp2": True}),
        ("jp2", {"irreversible": True, "tile_size": (64, 64)}),
    )
    for mode in ("L", "RGB", "I;16"):
        image = Image.fromarray(pixels if mode == "RGB" else pixels[:, :, 0].astype("u2" if mode == "I;16" else "u1"))
        for form, options in forms:
            buffer = BytesIO()
            image.save(buffer, "JPEG2000", **options)
            files.append((f"a.{form}", buffer.getvalue()))
            codestreams[mode, form] = buffer.getvalue()
    for mode, bits in (("L", 8), ("I;16", 16)):
        files.append(("frames.dcm", _multi_frame(160, 192, bits, [codestreams[mode, "j2k"]] * 4, JPEG2000Lossless)))
        raw = pixels[:, :, 0].astype(f"<u{bits // 8}").tobytes() * 4
        files.append(("frames.dcm", _multi_frame(160, 192, bits, raw, ExplicitVRLittleEndian)))
    return files


def _tiff(pages: list[np.ndarray], *, bigtiff: bool = False, pyramid: bool = False, **options: Any) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff) as file:
        for level, page in enumerate(pages):
            if pyramid:
                options |= {"subifds": len(pages) - 1} if level == 0 else {"subifds": None, "subfiletype": 1}
            file.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", **options)
    return buffer.getvalue()


def _multi_frame(rows: int, columns: int, bits: int, frames: bytes | list[bytes], syntax: UID) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3")
    dataset.PatientID, dataset.Rows, dataset.Columns, dataset.NumberOfFrames = "p", rows, columns, 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelData = encapsulate(frames) if isinstance(frames, list) else frames
    dataset["PixelData"].VR = "OB" if isinstance(frames, list) else "OW"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def child(folder: Path, seed: int, first: int, count: int, shared: Path | None) -> None:
    """Read inputs and write a line before and after each."""
    from medfsad_bench.errors import DownloadError
    from medfsad_bench.readers import read_patches, read_picture, read_volume

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    files = seeds(shared)
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        name, content = files[int(rng.integers(len(files)))]
        path = folder / name
        path.write_bytes(mutated(content, rng, other=files[int(rng.integers(len(files)))][1]))
        print(json.dumps({"start": number, "name": name}), flush=True)  # noqa: T201
        started = time.process_time()
        try:
            if ".nii" in name:
                assert read_volume(path).array.dtype == np.float32
            elif ".slide." in name:
                assert all(patch.pixels.dtype == np.uint8 for patch in read_patches(path, _PATCHES))
            else:
                frame = int(rng.integers(4)) if name == "frames.dcm" else 0
                assert read_picture(path, frame=frame).pixels.dtype == np.uint8
            outcome = "image"
        except DownloadError as error:
            outcome = "refused" if "\n" not in str(error) else "refused in several lines"
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome = f"escaped: {error!r}"[:200]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        took = time.process_time() - started
        print(json.dumps({"end": number, "outcome": outcome, "s": took, "peak_mib": peak}), flush=True)  # noqa: T201
        path.unlink()
        if peak > LIMIT_MIB:
            return  # the peak never falls: the next input gets a new process


def main() -> int:
    """Run children until all inputs are read, and say what became of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--child", type=int, nargs=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.child:
        first, count = options.child
        child(options.folder, options.seed, first, count, options.shared)
        return 0
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    slowest = peak = 0.0
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        while done < options.inputs:
            command = [sys.executable, __file__, "--seed", str(options.seed), "--folder", folder]
            command += ["--child", str(done), str(min(500, options.inputs - done))]
            command += ["--shared", str(options.shared)] if options.shared else []
            current, name, ended = done, "", True
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                for text in _lines(process):
                    line = json.loads(text)
                    if "start" in line:
                        current, name, ended = line["start"], line["name"], False
                        continue
                    ended, done = True, line["end"] + 1
                    outcomes[line["outcome"].split(":")[0]] += 1
                    slowest, peak = max(slowest, line["s"]), max(peak, line["peak_mib"])
                    if (
                        line["outcome"] not in ("image", "refused")
                        or line["s"] > LIMIT_S
                        or line["peak_mib"] > LIMIT_MIB
                    ):
                        bad.append(
                            f"{current} {name}: {line['outcome']}, {line['s']:.1f} s, {line['peak_mib']:.0f} MiB"
                        )
            if not ended:
                outcomes["crash or hang"] += 1
                bad.append(f"{current} {name}: the process ended with {process.returncode}")
                done = current + 1
    print(f"{done} inputs: {dict(outcomes)}; slowest {slowest:.1f} s, largest memory {peak:.0f} MiB")  # noqa: T201
    print("\n".join(bad))  # noqa: T201
    return 1 if bad else 0


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Lines as they come; a process that says nothing for too long is killed."""
    assert process.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    while selector.select(timeout=3 * LIMIT_S):
        text = process.stdout.readline()
        if not text:
            return
        yield text
    process.kill()


if __name__ == "__main__":
    sys.exit(main())
