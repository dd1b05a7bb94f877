"""Checks and conversions of arrays of vectors and of matches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.errors import ConfigurationError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


def check_vectors(name: str, vectors: Floats | torch.Tensor) -> None:
    """Raises ConfigurationError unless the vectors are [N, K] with N ≥ 1 and finite."""
    if not isinstance(vectors, np.ndarray | torch.Tensor):
        raise ConfigurationError(
            f"`{name}` must be a NumPy array or a tensor, got {type(vectors).__name__}."
        )
    shape = tuple(vectors.shape)
    if len(shape) != 2 or 0 in shape:
        raise ConfigurationError(
            f"`{name}` must be [people, width] with at least one row, got shape {list(shape)}."
        )
    array = (
        vectors.detach().cpu().float().numpy()
        if isinstance(vectors, torch.Tensor)
        else np.asarray(vectors)
    )
    if array.dtype.kind not in "fiu":
        raise ConfigurationError(f"`{name}` must be numbers, got dtype {array.dtype}.")
    bad = np.flatnonzero(~np.isfinite(array).all(1)) if array.dtype.kind == "f" else np.empty(0)
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        raise ConfigurationError(
            f"`{name}` has values that are not finite, in {len(bad)} rows: {rows}."
        )


def check_sides(
    name: str, a: Floats | torch.Tensor, b: Floats | torch.Tensor | None, matches: object | None
) -> Any:
    """Raises ConfigurationError unless the vectors of both sides are fit.

    Gives the matches, row by row by default.
    """
    check_vectors(f"{name}_a", a)
    if b is not None:
        check_vectors(f"{name}_b", b)
        if a.shape[1] != b.shape[1]:
            raise ConfigurationError(
                f"`{name}_a` and `{name}_b` need one width, got {a.shape[1]} and {b.shape[1]}."
            )
    if matches is not None:
        return matches
    if b is None or len(a) != len(b):
        raise ConfigurationError(
            f"{name}: `matches` is needed unless two sides of equal length match row by row."
        )
    return np.repeat(np.arange(len(a))[:, None], 2, axis=1)


def check_matches(matches: object, people_a: int, people_b: int | None) -> Ints:
    """Matches as distinct [P, 2] int64 rows, or ConfigurationError that says which are out of range."""
    array = np.asarray(matches)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array) or array.dtype.kind not in "iu":
        raise ConfigurationError(
            f"`matches` must be whole numbers [pairs, 2] with at least one pair, got {array.dtype} {list(array.shape)}."
        )
    array = np.unique(array.astype(np.int64), axis=0)
    limits = np.array([people_a, people_a if people_b is None else people_b])
    bad = ((array < 0) | (array >= limits)).any(1)
    if bad.any():
        raise ConfigurationError(
            f"`matches` names rows that do not exist ({people_a} on side a, {limits[1]} on side b): "
            f"{array[bad][:5].tolist()}."
        )
    if people_b is None and (array[:, 0] == array[:, 1]).any():
        raise ConfigurationError("`matches` of a one-sided set pairs people with themselves.")
    return array


def unit_rows(vectors: Floats | torch.Tensor) -> npt.NDArray[np.float32]:
    """[N, K] float32 with rows of unit length; a row of zeros stays zero."""
    array = (
        vectors.detach().cpu().float().numpy()
        if isinstance(vectors, torch.Tensor)
        else np.asarray(vectors)
    )
    array = array.astype(np.float32)
    array /= np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return array
