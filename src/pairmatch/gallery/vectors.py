"""Files of vectors with ids and attributes: Parquet, Arrow or NumPy.

The file says what made the vectors, so that vectors of two matchers, sides or kinds are not mixed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import printable
from pairmatch.core.types import Profile, Side
from pairmatch.gallery.attributes import PREFIX, Attributes, attributes_of
from pairmatch.gallery.blocks import Block, Chunk, vectors_of
from pairmatch.gallery.gallery import Gallery
from pairmatch.io.files import lock, parse_json
from pairmatch.io.replacing import remove_leftovers
from pairmatch.rules import Kind

_KEY = b"pairmatch"
_FORMATS = (".parquet", ".arrow", ".npz")
_TYPES: dict[Kind, pa.DataType] = {"number": pa.float64(), "text": pa.string(), "bool": pa.bool_()}
_FAULTS = (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException)


def check_vectors_file(path: str | Path) -> Path:
    """The path, if its name says a format.

    Raises:
        ConfigurationError: It does not end in .parquet, .arrow or .npz.
    """
    if Path(path).suffix not in _FORMATS:
        raise ConfigurationError(
            f"The format of {printable(str(path))} is unknown: name a file that ends in "
            f"{', '.join(_FORMATS)}."
        )
    return Path(path)


def write_vectors(
    path: str | Path,
    chunks: Iterable[Chunk],
    *,
    kinds: Mapping[str, Kind],
    side: Side,
    kind: str,
    made_by: str | None,
) -> int:
    """Writes vectors to a file, readable only by its owner, as a whole or not at all.

    Parquet and Arrow files are written chunk by chunk: columns `id`, `embedding` (a list of K
    float32 numbers) and `attribute.NAME`. NumPy files hold the arrays `ids`, `embeddings` [N, K],
    `attributes` (JSON texts) and `about`.

    Args:
        path: Path to a .parquet, .arrow or .npz file.
        chunks: Ids, attributes and vectors.
        kinds: Kind of each attribute.
        side: Side of the people.
        kind: `embedding` or `feature`.
        made_by: Digest of what made the vectors.

    Returns:
        Number of people.

    Raises:
        ConfigurationError: The name of the file says no format, or there are no people.
    """
    target = check_vectors_file(path)
    about = json.dumps({"format": 1, "kind": kind, "side": side, "made_by": made_by})
    with _replaced(target) as file:
        if target.suffix == ".npz":
            count = _write_numpy(file, chunks, about)
        else:
            count = _write_tables(file, target.suffix, _tables(chunks, kinds, about))
        if not count:
            raise ConfigurationError("There are no people: nothing was written.")
    return count


def read_vectors(path: str | Path) -> Gallery:
    """Reads a file of vectors as a gallery in memory, with the side and the digest of its maker.

    Raises:
        DataError: The file is missing or damaged, or `write_vectors` did not write it.
    """
    target = check_vectors_file(path)
    try:
        read = _read_numpy if target.suffix == ".npz" else _read_table
        ids, attributes, vectors, about = read(target)
        side, made_by = about["side"], about["made_by"]
    except _FAULTS as error:
        raise DataError(
            f"{printable(str(path))} is no file of vectors of pairmatch: "
            f"{printable(str(error))[:300]}."
        ) from error
    people = [Profile(person, attributes=row) for person, row in zip(ids, attributes, strict=True)]
    return Gallery.of(people, vectors, side=side, made_by=made_by)


def _tables(chunks: Iterable[Chunk], kinds: Mapping[str, Kind], about: str) -> Iterator[pa.Table]:
    for ids, attributes, vectors in chunks:
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        columns = {
            "id": pa.array(ids, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
        for name, kind in kinds.items():
            values = [row.get(name) for row in attributes]
            if kind == "number":
                values = [None if value is None else float(value) for value in values]
            columns[PREFIX + name] = pa.array(values, _TYPES[kind])
        yield pa.table(columns).replace_schema_metadata({_KEY: about.encode()})


def _write_tables(file: BinaryIO, suffix: str, tables: Iterable[pa.Table]) -> int:
    count = 0
    writer: Any = None
    try:
        for table in tables:
            if writer is None:
                make = pq.ParquetWriter if suffix == ".parquet" else pa.ipc.new_file
                writer = make(file, table.schema)
            writer.write_table(table)
            count += len(table)
    finally:
        if writer is not None:
            writer.close()
    return count


def _write_numpy(file: BinaryIO, chunks: Iterable[Chunk], about: str) -> int:
    ids: list[str] = []
    attributes: list[str] = []
    parts: list[Vectors] = []
    for names, rows, vectors in chunks:
        ids += names
        attributes += [json.dumps(row, ensure_ascii=False) for row in rows]
        parts.append(vectors)
    if ids:
        np.savez(
            file,
            ids=np.array(ids),
            embeddings=np.concatenate(parts),
            attributes=np.array(attributes),
            about=np.array(about),
        )
    return len(ids)


_Contents = tuple[Sequence[str], Sequence[Attributes], Vectors, Any]


def _read_numpy(path: Path) -> _Contents:
    with np.load(path, allow_pickle=False) as arrays:
        attributes = [parse_json(str(row)) for row in arrays["attributes"]]
        about = parse_json(str(arrays["about"]))
        return arrays["ids"].tolist(), attributes, arrays["embeddings"], about


def _read_table(path: Path) -> _Contents:
    if path.suffix == ".parquet":
        table = pq.ParquetFile(path).read()
    else:
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    about = parse_json(table.schema.metadata[_KEY])
    table = table.combine_chunks()
    vectors = vectors_of(table["embedding"].chunk(0))
    block = Block.of(table.drop_columns(["embedding"]), vectors)
    return block.ids.to_pylist(), attributes_of(block.people), vectors, about


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another one if the block succeeds."""
    remove_leftovers(path.parent, [path.name])
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    lock(handle)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
