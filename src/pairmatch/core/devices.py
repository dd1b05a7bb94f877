"""Devices, number formats, memory and threads."""

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
    """Device by name; `auto` is an accelerator if one is available, else the CPU.

    Raises:
        ConfigurationError: The device is unknown to torch, unavailable, or does not compute.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.ones(1, device=resolved).item()  # `meta` holds no numbers, a broken driver fails here
    except Exception as error:  # the class depends on the device and the build of torch
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigurationError(
            f"The device {device!r} cannot be used: {reason}. Use auto, or one of this machine: "
            f"{', '.join(_available_devices())}."
        ) from error
    return resolved


def _available_devices() -> list[str]:
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Number format by name; `auto` is bfloat16 if the GPU or CPU supports it, else float32.

    Raises:
        ConfigurationError: The name is not `auto`, `float32`, `bfloat16` or `float16`.
    """
    if dtype == "auto":
        if device.type == "cuda":
            is_supported = torch.cuda.is_bf16_supported()
        else:
            is_supported = device.type == "cpu" and _native_bfloat16()
        return torch.bfloat16 if is_supported else torch.float32
    if dtype not in _DTYPES:
        raise ConfigurationError(
            f"`dtype` must be 'auto', {', '.join(map(repr, _DTYPES))}; got {dtype!r}."
        )
    return _DTYPES[dtype]


@lru_cache
def _native_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions (AVX-512 BF16, AMX, or Arm's bf16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine() == "arm64" and platform.system() == "Darwin"
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def available_memory() -> float:
    """Number of bytes that can be allocated without swapping; infinity if unknown."""
    try:
        entries = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    for entry in entries:
        if entry.startswith("MemAvailable"):
            return float(entry.split()[1]) * 1024
    return math.inf


@contextmanager
def intra_op_threads(threads: int | None) -> Iterator[None]:
    """Sets torch's number of intra-op threads for the block; None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
