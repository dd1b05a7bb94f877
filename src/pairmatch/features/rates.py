"""How fast a model runs where it cannot be tried: by its number of operations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from pairmatch.core.devices import resolve_device, resolve_dtype
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item

#: Peak of dense matrix products in bfloat16 (T4: float16), in TFLOP/s, by the vendor's data sheets.
ACCELERATORS = {"H100": 989.0, "A100": 312.0, "L4": 121.0, "T4": 65.0}
#: Share of a data sheet's peak that an extraction is assumed to reach.
PEAK_SHARE = 0.4
#: Share of the measured rate of large matrix products; the models reach 75 to 90 % of it on CPUs.
PRODUCT_SHARE = 0.75
_SIDE = 1024  # rows of the matrices of the measurement
_SECONDS = 0.2


@runtime_checkable
class CountsOperations(Protocol):
    """A backbone that knows how much it computes, without its weights and the network."""

    def operations(self, item: Item) -> float | None:
        """Number of floating-point operations for a person; None if unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """Operations per second.

    Attributes:
        name: Device, in words.
        tflops: Rate of large matrix products, in TFLOP/s.
        share: Share of it that an extraction is assumed to reach, from 0 to 1.
    """

    name: str
    tflops: float
    share: float

    def seconds(self, operations: float) -> float:
        """Time for a number of operations, in seconds."""
        return operations / (self.tflops * 1e12 * self.share)

    def __str__(self) -> str:
        rate = f"{self.tflops:,.0f}" if self.tflops >= 10 else f"{self.tflops:.2g}"
        return f"{self.share:.0%} of the {rate} TFLOP/s of {self.name}"


def accelerator_rate(accelerator: str) -> Rate:
    """The rate of an accelerator.

    Args:
        accelerator: A name in `ACCELERATORS`, or the peak in TFLOP/s as a number.

    Raises:
        ConfigurationError: The name is unknown, or the number is not positive.
    """
    try:
        tflops = float(accelerator)
    except ValueError:
        name = accelerator.upper()
        if name not in ACCELERATORS:
            problem = unknown_name("accelerator", accelerator, list(ACCELERATORS))
            raise ConfigurationError(f"{problem} Or give its peak in TFLOP/s.") from None
        return Rate(f"one {name}", ACCELERATORS[name], PEAK_SHARE)
    if not 0 < tflops < float("inf"):
        raise ConfigurationError(f"The peak of an accelerator must be above 0, got {accelerator}.")
    return Rate("one accelerator", tflops, PEAK_SHARE)


def product_rate(backbone: Backbone) -> Rate:
    """The rate of matrix products on this machine, measured in the number format of a backbone."""
    device = resolve_device(str(getattr(backbone, "device", "cpu")))
    dtype = resolve_dtype(str(getattr(backbone, "dtype", "float32")), device)
    matrix = torch.ones(_SIDE, _SIDE, device=device, dtype=dtype)

    def multiply() -> None:
        (matrix @ matrix)[0, 0].item()  # waits for the device

    multiply()
    products = 0
    start = time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        multiply()
        products += 1
    elapsed = time.perf_counter() - start
    return Rate(
        f"this machine ({device.type})", products * 2 * _SIDE**3 / elapsed / 1e12, PRODUCT_SHARE
    )
