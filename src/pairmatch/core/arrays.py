"""Validation and conversion of arrays of vectors and of matches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import numpy.typing as npt

from pairmatch.core.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Whether a value is a tensor, without importing torch."""
    module = sys.modules.get("torch")
    return module is not None and isinstance(value, module.Tensor)


def to_numpy(vectors: Floats | torch.Tensor) -> Floats:
    """The vectors as a NumPy array; tensors are detached, moved to the CPU and cast to float32."""
    if is_tensor(vectors):
        return vectors.detach().cpu().float().numpy()
    return np.asarray(vectors)


def unit_rows(vectors: Floats | torch.Tensor) -> Vectors:
    """Scales rows to unit length: [N, K] float32; a row of zeros stays zero."""
    array = to_numpy(vectors).astype(np.float32)
    array /= np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return array


def check_count(argument: str, value: object) -> int:
    """A whole number of at least 1, such as `k`.

    Args:
        argument: The argument as a call, such as "search(k=...)".
        value: What was given.

    Raises:
        ConfigurationError: It is not a whole number, or below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigurationError(f"`{argument}` must be a whole number, got {value!r}.")
    if value < 1:
        raise ConfigurationError(f"`{argument}` must be at least 1, got {value}.")
    return int(value)


def check_positive(argument: str, value: object) -> float:
    """A finite number above 0, such as a temperature.

    Args:
        argument: The argument as a call, such as "balance(temperature=...)".
        value: What was given.

    Raises:
        ConfigurationError: It is not a number, not finite, or not above 0.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not np.isfinite(value):  # type: ignore[call-overload]
        raise ConfigurationError(f"`{argument}` must be a finite number, got {value!r}.")
    if value <= 0:  # type: ignore[operator]
        raise ConfigurationError(f"`{argument}` must be above 0, got {value}.")
    return float(value)  # type: ignore[arg-type]


def check_matrix(name: str, values: object) -> npt.NDArray[np.float64]:
    """Finite numbers [N, M] as float64.

    Raises:
        ConfigurationError: They are not numbers, not finite, or not a matrix.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ConfigurationError(
            f"`{name}` must be numbers in two dimensions, got {array.dtype} {list(array.shape)}."
        )
    if not np.isfinite(array).all():
        raise ConfigurationError(f"`{name}` has values that are not finite.")
    return array.astype(np.float64)


def check_vectors(name: str, vectors: object) -> None:
    """Raises ConfigurationError unless the vectors are finite numbers [N, K] with N ≥ 1."""
    if not isinstance(vectors, np.ndarray) and not is_tensor(vectors):
        kind = type(vectors).__name__
        raise ConfigurationError(f"`{name}` must be a NumPy array or a tensor, got {kind}.")
    shape = tuple(vectors.shape)
    if len(shape) != 2 or 0 in shape:
        raise ConfigurationError(
            f"`{name}` must be [people, width] with at least one row, got shape {list(shape)}."
        )
    array = to_numpy(vectors)
    if array.dtype.kind not in "fiu":
        raise ConfigurationError(f"`{name}` must be numbers, got dtype {array.dtype}.")
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite either
        bad = np.flatnonzero(~np.isfinite(np.asarray(array, np.float32)).all(1))
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        raise ConfigurationError(
            f"`{name}` has values that are not finite, in {len(bad)} rows: {rows}."
        )


def check_sides(name: str, a: object, b: object | None) -> None:
    """Raises ConfigurationError unless both sides are valid vectors of equal width."""
    check_vectors(f"{name}_a", a)
    if b is None:
        return
    check_vectors(f"{name}_b", b)
    widths = [side.shape[1] for side in (a, b)]  # type: ignore[attr-defined]
    if widths[0] != widths[1]:
        raise ConfigurationError(
            f"`{name}_a` and `{name}_b` need the same width, got {widths[0]} and {widths[1]}."
        )


def rows_that_match(name: str, people_a: int, people_b: int | None) -> Ints:
    """The default matches of two sides of equal length: row i matches row i, [N, 2].

    Raises:
        ConfigurationError: There is only one side, or the sides differ in length.
    """
    if people_a != people_b:
        raise ConfigurationError(
            f"{name}: `matches` is required unless two sides of equal length match row by row."
        )
    return np.repeat(np.arange(people_a)[:, None], 2, axis=1)


def check_matches(matches: object, people_a: int, people_b: int | None) -> Ints:
    """Distinct matches, sorted: [P, 2] int64.

    Args:
        matches: [P, 2] row numbers.
        people_a: Number of people on side a.
        people_b: Number of people on side b; None in one-sided sets.

    Raises:
        ConfigurationError: There are none, values are not row numbers, rows are out of range, or
            people are matched with themselves.
    """
    array = np.asarray(matches)
    if array.shape == (0, 2):
        raise ConfigurationError(
            "There is no match, nor a yes of one side: at least one pair must be a match, not "
            "rejected or open."
        )
    if array.ndim != 2 or array.shape[1] != 2 or not len(array) or array.dtype.kind not in "iu":
        raise ConfigurationError(
            "`matches` must be whole numbers [pairs, 2] with at least one pair, got "
            f"{array.dtype} {list(array.shape)}."
        )
    array = np.unique(array.astype(np.int64), axis=0)
    limits = np.array([people_a, people_a if people_b is None else people_b])
    bad = ((array < 0) | (array >= limits)).any(1)
    if bad.any():
        raise ConfigurationError(
            f"`matches` names rows that do not exist ({people_a} on side a, {limits[1]} on side "
            f"b): {array[bad][:5].tolist()}."
        )
    if people_b is None and (array[:, 0] == array[:, 1]).any():
        raise ConfigurationError("`matches` of a one-sided set pairs people with themselves.")
    return array


def positions_of(pairs: Ints, wanted: Ints) -> Ints:
    """[wanted] int64 position in `pairs` of each wanted pair; −1 if it is not there."""
    if not len(pairs) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    width = int(max(pairs[:, 1].max(), wanted[:, 1].max())) + 1
    keys = pairs[:, 0] * width + pairs[:, 1]
    order = np.argsort(keys, kind="stable")
    sought = wanted[:, 0] * width + wanted[:, 1]
    found = order[np.minimum(np.searchsorted(keys[order], sought), len(keys) - 1)]
    return np.where(keys[found] == sought, found, -1)
