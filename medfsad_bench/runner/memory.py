"""Out of memory, said so that it helps."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from medfsad_bench.errors import MethodError

_COSTLY = ("batch_size", "size_px", "train_shots", "shots")  # settings that memory grows with, by convention of name


@contextmanager
def memory_told(device: torch.device, config: Any) -> Iterator[None]:
    """Turn running out of memory into one paragraph that names the settings to lower.

    Raises:
        MethodError: In place of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        on_device = isinstance(error, torch.OutOfMemoryError)
        if not on_device and not isinstance(error, MemoryError) and "can't allocate memory" not in text:
            raise
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        levers = [f"--set {name}=… (now {values[name]})" for name in _COSTLY if values.get(name) is not None]
        detail = text.splitlines()[0] if text else type(error).__name__
        raise MethodError(
            f"Out of memory on {device} ({detail}). Finished epochs and draws are kept; lower "
            f"{', '.join(levers) or 'the size of the prepared images (prepare --size)'}, choose a smaller --backbone, "
            "or take a device with more memory."
        ) from error
