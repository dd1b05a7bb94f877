"""LanceDB's approximate index of vectors."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.text import printable
from pairmatch.gallery.blocks import vectors_of
from pairmatch.gallery.lance_errors import is_of_lance

_CONFIGURATIONS = {
    "IVF_FLAT": "IvfFlat",
    "IVF_SQ": "IvfSq",
    "IVF_PQ": "IvfPq",
    "IVF_RQ": "IvfRq",
    "IVF_HNSW_FLAT": "HnswFlat",
    "IVF_HNSW_SQ": "HnswSq",
    "IVF_HNSW_PQ": "HnswPq",
}


def is_indexed(table: Any) -> bool:
    """Returns whether the vectors of a table have an index."""
    return any("vector" in index.columns for index in table.list_indices())


def build_index(table: Any, index_type: str, options: dict[str, Any]) -> None:
    """Builds an index for inner products.

    Raises:
        ConfigurationError: LanceDB has no such type of index, or cannot build it from these people
            with these options.
    """
    if index_type not in _CONFIGURATIONS:
        raise ConfigurationError(unknown_name("index type", index_type, _CONFIGURATIONS))
    if "config" not in inspect.signature(table.create_index).parameters:  # older lancedb
        table.create_index(metric="dot", index_type=index_type, **options)
        return
    import lancedb.index

    configuration = getattr(lancedb.index, _CONFIGURATIONS[index_type])
    names = {field.name for field in fields(configuration)}
    own = {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in names}
    try:
        table.create_index("vector", config=configuration(distance_type="dot", **own), **rest)
    except Exception as error:
        if not is_of_lance(error) and not isinstance(error, TypeError):
            raise
        raise ConfigurationError(
            f"LanceDB cannot build the index {index_type} with these options: "
            f"{printable(str(error))[:300]}."
        ) from error


def nearest(table: Any, query: Vectors, k: int) -> tuple[npt.NDArray[Any], Vectors, Ints]:
    """Finds candidates with the index.

    Args:
        table: The LanceDB table.
        query: [K] float32.
        k: Maximum number of candidates.

    Returns:
        Ids [n] of str, exact scores [n] float32 and row ids [n] int64, with n at most k, best
        first.
    """
    search = table.search(query).distance_type("dot").limit(k).with_row_id(True)
    rows = search.select(["id", "vector", "_distance"]).to_arrow().combine_chunks()
    if not len(rows):
        return np.empty(0, object), np.empty(0, np.float32), np.empty(0, np.int64)
    vectors = vectors_of(rows["vector"].chunk(0)).astype(np.float64)
    scores = np.einsum("nk,k->n", vectors, query.astype(np.float64))
    order = np.argsort(-scores, kind="stable")
    ids = np.array(rows["id"].to_pylist(), object)[order]
    return ids, scores[order].astype(np.float32), rows["_rowid"].to_numpy().astype(np.int64)[order]
