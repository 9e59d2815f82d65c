"""How fast `prepare` is: the set `rsna`, 1024 × 1024 JPEG-coded DICOM to 256 px, with digests, fingerprints and audit.

Prints, in one run on one machine: images a second with one worker and with two, their ratio, the plain loop's figure
(decode, resize, gzip; no digests, no audit) for comparison, and the largest memory of the preparing process.

    python tests/bench/bench_prepare.py [--images 2262]
"""

import argparse
import io
import os
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.manifest import all_manifests, listed_ids


class _Silent:
    def start(self, label: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


def write_download(root: Path, count: int) -> None:
    """A download of the set `rsna` with `count` of its listed ids, its two tables, and phantoms for radiographs.

    Smooth anatomy with noise, which JPEG finds as hard as the real ones (0.1 MB).
    """
    manifest = all_manifests()["rsna"]
    listed = listed_ids(manifest, manifest.split("medfsad-13k")) or []
    chosen = [listed[index] for index in np.linspace(0, len(listed) - 1, min(count, len(listed))).astype(int)]
    images = root / "stage_2_train_images"
    images.mkdir(parents=True)
    labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number, row in enumerate(chosen):
        opacity = row.split == "test" and number % 2 == 0
        labels.append(f"{row.id},264,152,213,379,1" if opacity else f"{row.id},,,,,0")
        classes.append(f"{row.id},{'Lung Opacity' if opacity else 'Normal'}")
        _write(images / f"{row.id}.dcm", _radiograph(number), row.id)
    root.joinpath("stage_2_train_labels.csv").write_text("\n".join([*labels, ""]))
    root.joinpath("stage_2_detailed_class_info.csv").write_text("\n".join([*classes, ""]))


def _radiograph(number: int) -> bytes:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(20, 230, (24, 24), np.uint8))
    smooth = np.asarray(coarse.resize((1024, 1024), Image.Resampling.BICUBIC), np.float32)
    pixels = np.clip(smooth + rng.normal(0, 3, (1024, 1024)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def _write(path: Path, jpeg: bytes, patient: str) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, UID("1.2.3")
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, UID("1.2.3")
    dataset.PatientID, dataset.Modality = patient, "CR"
    dataset.Rows = dataset.Columns = 1024
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = encapsulate([jpeg])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def plain_loop(root: Path, out: Path) -> tuple[float, float]:
    """Images a second of what everybody writes: decode, resize, store."""
    paths = sorted(root.rglob("*.dcm"))
    wall, cpu = time.perf_counter(), time.process_time()
    with h5py.File(out / "plain.h5", "w") as file:
        stored = file.create_dataset(
            "images", (len(paths), 256, 256), np.uint8, chunks=(1, 256, 256), compression="gzip", shuffle=True
        )
        for index, path in enumerate(paths):
            pixels = pydicom.dcmread(path).pixel_array
            stored[index] = np.asarray(Image.fromarray(pixels).resize((256, 256), Image.Resampling.LANCZOS))
    return len(paths) / (time.perf_counter() - wall), len(paths) / (time.process_time() - cpu)


def timed(root: Path, out: Path, workers: int, count: int) -> tuple[float, float]:
    """Images a second of `prepare`, everything included: by the clock, and by the processor time of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    options = PrepareOptions(out, workers=workers, allow=frozenset({"smaller"}))
    prepare(root, options, datasets=["rsna"], watcher=_Silent())
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2262)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "rsna", Path(folder) / "out"
        write_download(root, count)
        out.mkdir()
        plain = plain_loop(root, out)
        solo = timed(root, out / "one", 1, count)
        two = timed(root, out / "two", 2, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    serial = solo[1] / two[1]  # of one image's processor time, what two workers leave to the first process
    for line in (
        f"prepare, one worker      {solo[1]:6.1f} images/s of one core, {solo[0]:.1f} by the clock (wanted: 45 a core)",
        f"plain loop, no checks    {plain[1]:6.1f} images/s of one core, {plain[0]:.1f} by the clock",
        f"prepare / plain loop     {solo[1] / plain[1]:6.2f} of one core (wanted: 0.8, 45 of a quick machine's 57)",
        f"prepare, two workers     {two[0]:6.1f} images/s by the clock, {two[0] / solo[0]:.2f} times one (wanted: 1.8)",
        f"left to one process      {serial:6.0%} of the work: two workers can reach {2 / (1 + serial):.2f} times one",
        f"memory of the process    {peak:6.0f} MiB",
        f"load of the machine      {os.getloadavg()[0]:6.1f} (above 1 before the start, the clock says little)",
    ):
        print(line)


if __name__ == "__main__":
    main()
