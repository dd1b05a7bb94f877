"""Devices, number formats, memory and threads of this machine."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from pairmatch.core.errors import ConfigurationError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """`auto` is an accelerator if there is one.

    Raises:
        ConfigurationError: A device that torch does not know or that is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"The device {device!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    return found


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on GPUs and on CPUs with bfloat16 instructions, else float32.

    Raises:
        ConfigurationError: Another name than `auto`, `float32`, `bfloat16` or `float16`.
    """
    if dtype == "auto":
        fast = (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else device.type == "cpu" and _native_bfloat16()
        )
        return torch.bfloat16 if fast else torch.float32
    if dtype not in _DTYPES:
        raise ConfigurationError(
            f"`dtype` is 'auto', {', '.join(map(repr, _DTYPES))}; got {dtype!r}."
        )
    return _DTYPES[dtype]


@lru_cache
def _native_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX-512 BF16, AMX, or Arm's bf16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine() == "arm64" and platform.system() == "Darwin"
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def available_memory() -> float:
    """Bytes that can be allocated without swapping; infinity where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next(
        (float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")),
        math.inf,
    )


@contextmanager
def intra_op_threads(threads: int | None) -> Iterator[None]:
    """Sets torch's intra-op threads for a while."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
