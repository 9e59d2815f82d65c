"""What is trained, the student and the learned weights: made, run, and read from the reference's checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d24fad import student, weighting
from d24fad.config import Config
from medfsad_bench.errors import WeightsError
from medfsad_bench.learning import load_weights, read_tensors


class Networks(nn.Module):
    """Student and learned weights.

    Args:
        shape: Channels of the teacher's stages 1 to 4, then their heights.
        config: Depths of the student, precision and memory layout.
    """

    def __init__(self, shape: Sequence[int], config: Config) -> None:
        super().__init__()
        channels, heights = shape[:4], shape[4:]
        self.shape = tuple(int(value) for value in shape)
        finer = [heights[i] > heights[i + 1] for i in range(3)]
        self.decoder = student.Student(channels, finer, config.depths)
        self.weight = weighting.LearnToWeight(channels[:3])
        self._layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self._precision = config.precision
        if config.channels_last:
            self.to(memory_format=torch.channels_last)
        self._compiled = None if config.compile == "no" else torch.compile(self.decoder.in_passes, mode=config.compile)

    def decode(self, last: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _c _h _w"]]:
        """The student's estimates of stages 1, 2, 3 from stage 4, as float32."""
        return self.passes(last, len(last))[0]

    def passes(self, last: Float[Tensor, "n c h w"], each: int) -> list[list[Float[Tensor, "_n _c _h _w"]]]:
        """The same in passes of `each` images, of which batch-norm takes the statistics in training."""
        in_passes = self._compiled if self._compiled is not None and self.training else self.decoder.in_passes
        with numerics(self._precision, last.device.type):
            passes = in_passes(last.contiguous(memory_format=self._layout), each)
        return [[scale.to(last.dtype) for scale in scales] for scales in passes]


@contextmanager
def numerics(precision: str, device_type: str) -> Iterator[None]:
    """Arithmetic of the student: float32; TF32 in CUDA's products and convolutions; or bfloat16 under autocast."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def new_networks(stages: Sequence[Float[Tensor, "_n _c _h _w"]], config: Config, *, seed: int) -> Networks:
    """Untrained networks for a teacher whose stages look like these, on their device."""
    shape = stage_shape(stages)
    plain = Networks(shape, replace(config, channels_last=False, compile="no"))
    generator = torch.Generator().manual_seed(seed)
    student.initialise(plain.decoder, generator)
    weighting.initialise(plain.weight, generator)
    networks = Networks(shape, config)
    networks.load_state_dict(plain.state_dict())  # drawn in one layout, so that another has the same weights
    return networks.to(stages[0].device)


def stage_shape(stages: Sequence[Float[Tensor, "_n _c _h _w"]]) -> list[int]:
    """Channels of stages 1 to 4, then their heights."""
    return [*(stage.shape[1] for stage in stages), *(stage.shape[2] for stage in stages)]


def read_reference(path: Path, config: Config) -> Networks:
    """Networks from a checkpoint of the reference implementation: `{"decoder": …, "weight": …}`.

    Raises:
        WeightsError: If it isn't of that form; the message names the first keys that differ.
    """
    stored = read_tensors(path)
    if not isinstance(stored, dict) or set(stored) != {"decoder", "weight"}:
        content = sorted(map(str, stored))[:3] if isinstance(stored, dict) else type(stored).__name__
        raise WeightsError(f"{path} holds {content}. Expected the two entries 'decoder' and 'weight'.")
    flat = {f"{part}.{name}": value for part, values in stored.items() for name, value in dict(values).items()}
    networks = Networks(_reference_shape(flat, config.size_px), config)
    load_weights(networks, flat)
    return networks


def _reference_shape(flat: Mapping[str, Tensor], size_px: int) -> list[int]:
    """Stages of the teacher that a reference checkpoint is for, from the shapes of its tensors."""
    try:
        channels = [int(flat[f"weight.proj_in{scale}.bias"].shape[0]) for scale in (1, 2, 3)]
        last = int(flat["decoder.layer1.0.conv1.weight"].shape[1])
    except (KeyError, IndexError) as error:
        raise WeightsError(f"The checkpoint lacks {error}. Expected the reference's decoder and weight.") from error
    return [*channels, last, *(size_px // reduction for reduction in (4, 8, 16, 32))]
