"""Attributes as columns of a LanceDB table, regardless of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.errors import StoreError
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.attributes import PREFIX, is_attribute, kind_of_arrow
from pairmatch.gallery.blocks import Block, vectors_of
from pairmatch.gallery.description import checked_description
from pairmatch.gallery.index import Additions
from pairmatch.rules import Kind

#: Key of the schema metadata that holds `side` and `made_by` as JSON.
METADATA_KEY = b"pairmatch"
_KEY_COLUMNS = ("id", "vector")
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_CODED = "attribute_"
_TYPES: dict[Kind, pa.DataType] = {"number": pa.float64(), "text": pa.string(), "bool": pa.bool_()}


def column_names(schema: pa.Schema) -> dict[str, str]:
    """Returns the column of each attribute in a table, by attribute name."""
    return {_decoded(name): name for name in schema.names if name not in _KEY_COLUMNS}


def check_schema(schema: pa.Schema) -> None:
    """Raises StoreError unless the columns are those of a gallery."""
    types = {name: schema.field(name).type for name in schema.names}
    vector = types.get("vector")
    is_gallery = (
        "id" in types
        and pa.types.is_string(types["id"])
        and vector is not None
        and pa.types.is_fixed_size_list(vector)
        and vector.value_type == pa.float32()
        and all(is_attribute(types[name]) for name in column_names(schema).values())
    )
    if not is_gallery:
        raise StoreError(
            f"The LanceDB table holds no gallery of pairmatch: its columns are {', '.join(types)}."
        )


def description_of(schema: pa.Schema) -> dict[str, Any] | None:
    """Returns `side` and `made_by` of a table; None for tables of older versions.

    Raises:
        StoreError: They are damaged.
    """
    about = (schema.metadata or {}).get(METADATA_KEY)
    return None if about is None else checked_description(about)


def kinds_of(schema: pa.Schema) -> dict[str, Kind]:
    """Returns the kind of each attribute in a table."""
    return {
        name: kind_of_arrow(schema.field(column).type)
        for name, column in column_names(schema).items()
    }


def width_of(schema: pa.Schema) -> int:
    """Returns K of the embeddings in a table."""
    return int(schema.field("vector").type.list_size)


def attribute_fields(kinds: Mapping[str, Kind]) -> list[pa.Field]:
    """Returns the columns of new attributes."""
    return [pa.field(_coded(name), _TYPES[kind]) for name, kind in kinds.items()]


def table_schema(kinds: Mapping[str, Kind], width: int, about: str) -> pa.Schema:
    """Returns the schema of a new table."""
    vector = pa.field("vector", pa.list_(pa.float32(), width))
    fields = [pa.field("id", pa.string()), vector, *attribute_fields(kinds)]
    return pa.schema(fields, metadata={METADATA_KEY: about.encode()})


def rows_of(additions: Additions, schema: pa.Schema) -> pa.Table:
    """Returns people as rows of a table."""
    flat = pa.array(additions.vectors.ravel())
    columns: dict[str, pa.Array] = {
        "id": pa.array(additions.ids, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, additions.vectors.shape[1]),
    }
    for name, column in column_names(schema).items():
        values = [_stored(row.get(name)) for row in additions.attributes]
        columns[column] = pa.array(values, schema.field(column).type)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def block_of(batches: Sequence[pa.RecordBatch]) -> Block:
    """Returns rows of a table as a block; without vectors, they have width 0."""
    table = pa.Table.from_batches(batches).combine_chunks()
    people = {"id": table["id"]}
    for name, column in column_names(table.schema).items():
        people[PREFIX + name] = table[column]
    if "vector" in table.column_names:
        vectors = vectors_of(table["vector"].chunk(0))
    else:
        vectors = np.empty((len(table), 0), np.float32)
    return Block.of(pa.table(people), vectors)


def _stored(value: AttributeValue | None) -> AttributeValue | None:
    """Numbers as floats, without a negative zero: the database orders it before zero."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) + 0.0
    return value


def _coded(name: str) -> str:
    """A column name that LanceDB accepts: no dots or backticks, and none of its reserved names."""
    if _PLAIN_NAME.fullmatch(name) and name not in _KEY_COLUMNS and not name.startswith(_CODED):
        return name
    return _CODED + name.encode().hex()


def _decoded(column: str) -> str:
    if not column.startswith(_CODED):
        return column
    try:
        return bytes.fromhex(column.removeprefix(_CODED)).decode()
    except ValueError:  # not written by pairmatch
        return column
