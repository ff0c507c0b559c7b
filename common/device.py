"""Where and in which precision the arithmetic runs."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Device:
    """A torch device and the dtype of its matrix products (float32 means: no autocast)."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Autocast to `dtype` on this device, or nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def usable_cores() -> int:
    """Cores that this process may run on, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(precision: str = "auto") -> Device:
    """CUDA when there is one, else the CPU; bf16 where the hardware has it, unless told otherwise.

    `precision` is `auto`, `fp32` or `bf16`.
    """
    cuda = torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported() if cuda else cpu_has_bf16()
    use_bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return Device(
        torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if use_bf16 else torch.float32
    )
