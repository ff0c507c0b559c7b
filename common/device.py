"""Where and in which precision the arithmetic runs.

On a GPU three things differ from a processor, and none of them exists on one: batches are copied
from pinned memory, products of float32 matrices may be rounded to TF32, and the frozen prefix may
be compiled.
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

# What a process may keep of freed memory; its peak does not grow by that.
KEPT_BYTES = 1 << 30
OLD_LIMIT_BYTES = 32 << 20

Found = TypeVar("Found")


@dataclass(frozen=True)
class Device:
    """A torch device and the dtype of its matrix products (float32 means: no autocast).

    With `tf32` a GPU rounds the inputs of float32 products to 10 bits (relative error up to
    2^-11), within `products` alone.  `compiled` lets torch.compile write the frozen prefix's
    kernels, which takes a minute and pays where many rows are read.
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Autocast to `dtype` on this device, or nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextmanager
    def products(self) -> Iterator[None]:
        """The precision of float32 products within: of a forward pass and of its backward pass.

        Norms, clipping and noise must stay outside: TF32 would loosen the bound that they keep.
        """
        before = torch.get_float32_matmul_precision()
        if self.tf32:
            torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            if self.tf32:
                torch.set_float32_matmul_precision(before)

    def prefix_of(self, run: Callable[[Tensor, Tensor], Found]) -> Callable[..., Found]:
        """`run`, compiled where that was asked for; batches of any shape share one compilation."""
        if not self.compiled:
            return run
        compiled: Callable[..., Found] = torch.compile(run, dynamic=True)
        return compiled

    def copy(self, tensor: Tensor) -> Tensor:
        """`tensor` on this device; to a GPU from pinned memory, so that the copy need not wait."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def usable_cores() -> int:
    """Cores that this process may run on, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_share(workers: int) -> float:
    """The fraction of a GPU for each of `workers` processes that share all GPUs evenly; 0 without.

    Ray places a worker on one GPU and counts in units of 1e-4, so the share is rounded down.
    """
    gpus = torch.cuda.device_count()
    if gpus == 0:
        return 0.0
    on_one = -(-workers // gpus)
    return 10_000 // on_one / 10_000


def pick_device(precision: str = "auto", compiled: bool = False) -> Device:
    """CUDA when there is one, else the CPU; bf16 where the hardware has it, unless told otherwise.

    `precision` is `auto`, `fp32`, `bf16` or `tf32` (fp32 where there is no such GPU).  `compiled`
    is for GPUs too: on a processor it costs more than it saves.
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
    """Have GPUs add the products of half-precision matrices in float32.

    PyTorch lets them add parts of a sum in bfloat16 or float16 unless told otherwise, an error that
    the bounds of clipping do not count (`client.bookkeeping`).
    """
    products = torch.backends.cuda.matmul
    products.allow_bf16_reduced_precision_reduction = False
    products.allow_fp16_reduced_precision_reduction = False
    products.allow_fp16_accumulation = False


@cache
def keep_memory() -> None:
    """Let the C library keep what tensors free, for the next step to use.

    glibc returns large blocks to the system at once, so that every step faults in anew the memory
    of the step before: a tenth of full fine-tuning's time.  Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of <malloc.h>; the first has a limit in old ones.
        mallopt(-3, KEPT_BYTES) or mallopt(-3, OLD_LIMIT_BYTES)
        mallopt(-1, KEPT_BYTES)
