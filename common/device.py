"""Where and in which precision the arithmetic runs.

Three things happen on a GPU only: batches are copied from pinned memory, products of float32
matrices may be rounded to TF32, and the frozen layers may be compiled.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

# Freed memory that a process may keep; its peak does not grow by that.
KEPT_BYTES = 1 << 30
OLD_LIMIT_BYTES = 32 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Device:
    """A torch device and its precision.

    Attributes:
        device: The torch device.
        dtype: The dtype of matrix products; float32 means no autocast.
        tf32: Whether a GPU rounds the inputs of float32 products to 10 bits (relative error up to
            2^-11), within `products` alone.
        compiled: Whether torch.compile makes kernels for the frozen layers.  It takes a minute, and
            is worth it where many examples are read.
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Autocast to `dtype` on this device; nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextmanager
    def products(self) -> Iterator[None]:
        """Set the precision of float32 products in a forward and a backward pass.

        Norms, clipping and noise must stay outside: TF32 would loosen their bound.
        """
        before = torch.get_float32_matmul_precision()
        if self.tf32:
            torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            if self.tf32:
                torch.set_float32_matmul_precision(before)

    def compile_if_asked(self, run: Callable[[Tensor, Tensor], Result]) -> Callable[..., Result]:
        """`run`, compiled if `compiled`; batches of all shapes share one compilation."""
        if not self.compiled:
            return run
        compiled: Callable[..., Result] = torch.compile(run, dynamic=True)
        return compiled

    def copy(self, tensor: Tensor) -> Tensor:
        """`tensor` on this device; copied to a GPU from pinned memory, without waiting."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def usable_cores() -> int:
    """The number of cores this process may run on; in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_share(workers: int) -> float:
    """The fraction of a GPU for each of `workers` processes; 0 where there is no GPU.

    All GPUs are shared evenly.  Ray places a worker on one GPU and counts in units of 1e-4, so the
    fraction is rounded down.
    """
    gpus = torch.cuda.device_count()
    if gpus == 0:
        return 0.0
    on_one = -(-workers // gpus)
    return 10_000 // on_one / 10_000


def pick_device(precision: str = "auto", compiled: bool = False) -> Device:
    """A GPU if there is one, else the CPU.

    Args:
        precision: `auto` (bf16 where the hardware has it, else fp32), `fp32`, `bf16`, or `tf32`
            (fp32 where there is no GPU that has it).
        compiled: As in `Device`; without effect on a CPU, where it would cost more than it saves.
    """
    _accumulate_in_full()
    cuda = torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported() if cuda else cpu_has_bf16()
    use_bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return Device(
        torch.device("cuda" if cuda else "cpu"),
        torch.bfloat16 if use_bf16 else torch.float32,
        tf32=precision == "tf32" and cuda and torch.cuda.get_device_capability() >= (8, 0),
        compiled=compiled and cuda,
    )


def _accumulate_in_full() -> None:
    """Make GPUs accumulate products of half-precision matrices in float32.

    By default PyTorch lets them add partial sums in bfloat16 or float16, an error that the bounds
    of clipping do not cover (`client.bookkeeping`).
    """
    products = torch.backends.cuda.matmul
    products.allow_bf16_reduced_precision_reduction = False
    products.allow_fp16_reduced_precision_reduction = False
    products.allow_fp16_accumulation = False


@cache
def keep_memory() -> None:
    """Make the C library keep freed memory for the next step.

    glibc returns large blocks to the system at once, so every step would fault in its memory again:
    a tenth of the time of full fine-tuning.  Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of <malloc.h>; old versions limit the first.
        mallopt(-3, KEPT_BYTES) or mallopt(-3, OLD_LIMIT_BYTES)
        mallopt(-1, KEPT_BYTES)
