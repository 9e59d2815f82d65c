"""What reading leaves of each image until its set is written: pixels, mask and what is known of it.

Each image lies in the staging folder as soon as it's done, so that a killed `prepare` goes on where it was and no
pixels travel between processes.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from medfsad_bench.curation.duplicates import Fingerprint
from medfsad_bench.errors import CurationError
from medfsad_bench.files import whole, write_advice
from medfsad_bench.store.writer import Packed, packed_chunk


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of an image once it has been read. Its pixels lie in the staging folder.

    `problem` is empty, or why the image is quarantined; then the other fields mean nothing.
    """

    id: str
    problem: str = ""
    sha256: str = ""
    height: int = 0
    width: int = 0
    channels: int = 1
    spacing_mm: tuple[float, float] | None = None
    window: str = ""
    transfer_syntax: str = ""
    header_patient: str = ""
    warnings: tuple[str, ...] = ()
    privacy: tuple[str, ...] = ()
    mask_area: float = -1.0  # share of the image; -1 where it has no mask
    commonest: float = 0.0  # share of the commonest grey level
    levels: int = 0  # grey levels that occur
    contrast: float = 0.0  # standard deviation of the stored pixels, 0…127.5
    prints: Fingerprint = field(default_factory=lambda: np.zeros((32, 32), np.float32))


def stage(
    folder: Path,
    loaded: Loaded,
    pixels: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "mh mw"] | None,
) -> None:
    """Put an image into the staging folder.

    Raises:
        CurationError: If the disk is full. It's no fault of the image, so it must not end in quarantine.
    """
    facts = asdict(loaded)
    arrays = {"prints": facts.pop("prints"), "pixels": pixels, "packed": np.frombuffer(packed_chunk(pixels), np.uint8)}
    if mask is not None:  # packed here, where there are several of us
        arrays |= {"mask": mask, "packed_mask": np.frombuffer(packed_chunk(mask), np.uint8)}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"facts": json.dumps(facts)})
    with writing(folder), whole(_staged_path(folder, loaded.id)) as temporary:
        temporary.write_bytes(content)


def staged(folder: Path, image_id: str, sha256: str) -> Loaded | None:
    """What is known of an image that was staged from a file of this digest; None where it has to be read anew."""
    path = _staged_path(folder, image_id)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            facts["prints"] = file.get_tensor("prints")
    except (OSError, ValueError, KeyError, SafetensorError):  # torn by a crash of the machine
        return None
    if facts.get("sha256") != sha256 or set(facts) != {field.name for field in fields(Loaded)}:  # or of another version
        return None
    lists = {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
    return Loaded(**(facts | lists))


def staged_pixels(
    folder: Path, image_id: str, channels: int = 1
) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "mh mw"] | None]:
    """Pixels and mask of an image that was staged; grey ones are repeated where three channels are asked for."""
    with safe_open(_staged_path(folder, image_id), framework="np") as file:
        pixels = file.get_tensor("pixels")
        mask = file.get_tensor("mask") if "mask" in file.keys() else None  # noqa: SIM118 - it's no mapping
    return (np.repeat(pixels[:, :, None], channels, axis=2) if pixels.ndim == 2 else pixels), mask


def staged_chunks(folder: Path, image_id: str) -> Packed:
    """Pixels and mask of an image that was staged, as the prepared file stores them."""
    with safe_open(_staged_path(folder, image_id), framework="np") as file:
        image = file.get_tensor("packed").tobytes()
        if "mask" not in file.keys():  # noqa: SIM118
            return Packed(image)
        height, width = file.get_slice("mask").get_shape()
        return Packed(image, file.get_tensor("packed_mask").tobytes(), (height, width))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Any `OSError` becomes a `CurationError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise CurationError(
            f"{path}: can't be written ({error.strerror or error}). {write_advice(error)} The same command then goes "
            "on where it was."
        ) from error


def _staged_path(folder: Path, image_id: str) -> Path:
    return folder / f"{hashlib.sha256(image_id.encode()).hexdigest()[:32]}.safetensors"
