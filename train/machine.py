"""Description of the training machine, and two settings that multiply its speed."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

import torch

_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of handing it back to the kernel; True if it did.

    A step allocates the same tensors of tens of megabytes again and again. By default each is mapped
    afresh, and filling it costs a page fault every 4 KiB: measured, two thirds of a training step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    supported = any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return torch.bfloat16 if supported else torch.float32


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The machine for a record: processor, cores, threads, device and library versions."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
