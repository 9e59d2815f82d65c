"""A device for tests where there is no GPU: `cuda` to whoever asks, values on the CPU, and CUDA's refusals.

Within `stand_in_gpu()` a tensor that is made with, or brought to, `device="cuda"` is an `OnGpu`: a shell around a
tensor of the CPU, which each operation is done with. Operations refuse what CUDA's would: tensors of two devices, a
CPU's generator for random numbers there, an array made of a tensor there. As values are real, methods may look at them,
which they can't with torch's own fake tensors; and gradients flow, which they don't there without a GPU.

What it can't tell: whether CUDA has a kernel for an operation, whether that repeats its bits, how exact or fast it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

GPU = torch.device("cuda:0")
# What torch's own code takes the device for: one for which gradients need no threads and no driver.
_INNER = torch.device("lazy")
_COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}  # from any device to any
_FILLING = {torch.ops.aten.fill_.Tensor, torch.ops.aten.fill.Tensor}  # by a number that may lie on the CPU
_INDEXED = {  # by tensors that may lie on the CPU
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
}


class OnGpu(Tensor):
    """A tensor on the device.

    Attributes:
        on_host: The same on the CPU, which has its values.
    """

    on_host: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, on_host: Tensor) -> "OnGpu":
        shell: OnGpu = Tensor._make_wrapper_subclass(
            cls,
            on_host.size(),
            strides=on_host.stride(),
            storage_offset=on_host.storage_offset(),
            dtype=on_host.dtype,
            device=_INNER,
        )
        shell.on_host = on_host
        return shell

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def tolist(self) -> Any:
        return self.on_host.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnGpu({self.on_host!r})"


class _Driver(TorchDispatchMode):
    """Sees every operation, those that make tensors from nothing, too."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def stand_in_gpu() -> Iterator[torch.device]:
    """The device, for as long as the block lasts. Weights of networks have to be read from their files before.

    Where there is a GPU, the test is skipped: torch's own code would go to that one now and then.
    """
    if torch.cuda.is_available():
        pytest.skip("needs no stand-in for a GPU; test_gpu.py asks the one that is here")
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    # A parameter that is brought there stays the object that the optimiser knows, as it does with CUDA.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        driver = _Driver()  # type: ignore[no-untyped-call]
        with FakeTensorMode(), driver:  # the former computes nothing; it keeps torch from looking for CUDA's driver
            yield torch.device("cuda")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, on the device that its arguments or its `device` say."""
    flat, structure = tree_flatten((args, kwargs))
    asked = kwargs.get("device")
    there = any(isinstance(part, OnGpu) for part in flat) if asked is None else torch.device(asked).type != "cpu"
    _refuse_what_cuda_refuses(func, args, flat, there)
    host_args, host_kwargs = tree_unflatten([_on_host(part) for part in flat], structure)
    with _disable_current_modes():
        result = func(*host_args, **host_kwargs)
    if not there:
        return result
    shells = tree_map(lambda part: OnGpu(part) if isinstance(part, Tensor) else part, result)
    return return_and_correct_aliasing(func, args, dict(kwargs), shells)


def _on_host(part: Any) -> Any:
    if isinstance(part, OnGpu):
        return part.on_host
    return torch.device("cpu") if isinstance(part, torch.device) else part


def _refuse_what_cuda_refuses(func: Any, args: Sequence[Any], flat: Sequence[Any], there: bool) -> None:
    if there and any(isinstance(part, torch.Generator) for part in flat):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu', in {func}")
    tensors = [part for part in flat if isinstance(part, Tensor)]
    if func in _COPIES or not any(isinstance(tensor, OnGpu) for tensor in tensors):
        return
    if func in _INDEXED:  # what is indexed, and what is put there
        tensors = [args[0], *(part for part in args[2:] if isinstance(part, Tensor))]
    pointwise = torch.Tag.pointwise in func.tags or func in _INDEXED | _FILLING
    written = args[0] if func._schema.is_mutable else None
    for tensor in tensors:
        is_number = pointwise and tensor.ndim == 0 and tensor is not written
        if not isinstance(tensor, OnGpu) and not is_number:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu, in "
                f"{func}: one of shape {tuple(tensor.shape)} is on the CPU"
            )
