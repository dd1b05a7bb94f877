"""Arrow files of people: written with checksums, memory-mapped, and validated before use.

Nothing of a file reaches the Arrow reader before its size and the checksum of all bytes except the
vectors agree with the journal: a damaged file must not crash the process. Vectors have a checksum
of their own, which is compared when they are first used, so that opening reads none of them.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import StoreError
from pairmatch.core.text import printable
from pairmatch.gallery.attributes import PREFIX, is_attribute
from pairmatch.gallery.blocks import Block, vectors_of
from pairmatch.io.files import parse_json

_BATCH_ROWS = 65_536  # people per record batch, all that writing holds in memory
_FAULTS = (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException)

Checksums = Mapping[str, Any]


def write_people(path: Path, blocks: Iterable[Block], schema: pa.Schema) -> Checksums:
    """Writes all people that are alive to a new file; it is on disk when this returns.

    Args:
        path: Path to the file, which must not exist.
        blocks: People.
        schema: Columns of the people, without vectors.

    Returns:
        What `read_people` compares: `bytes`, `head`, `vectors`, `ranges`.
    """
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as file:
        writer = None
        for people, vectors in _batches(blocks, schema):
            embedding = pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel()), vectors.shape[1]
            )
            table = people.append_column("embedding", embedding).combine_chunks()
            writer = writer or pa.ipc.new_file(file, table.schema)
            writer.write_table(table)
            digest.update(vectors.data)
        if writer is not None:
            writer.close()
    sync(path)
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer().address
        source.seek(0)
        reader = pa.ipc.open_file(source)
        buffers = [
            reader.get_batch(number).column("embedding").flatten().buffers()[1]
            for number in range(reader.num_record_batches)
        ]
        ranges = sorted([buffer.address - start, buffer.size] for buffer in buffers)
    return {
        "bytes": path.stat().st_size,
        "head": _head_digest(path, ranges),
        "vectors": digest.hexdigest(),
        "ranges": ranges,
    }


def read_people(path: Path, checksums: str | None, width: int | None) -> list[Block]:
    """Reads the blocks of a file, memory-mapped, without reading their vectors.

    Args:
        path: Path to the file.
        checksums: JSON of what `write_people` returned; None for files of earlier versions.
        width: K of the vectors.

    Raises:
        StoreError: The file cannot be read, is damaged, or holds something else.
    """
    try:
        if not path.is_file():
            raise ValueError("it is missing, or not a regular file")
        if checksums is not None:
            _check_head(path, parse_json(checksums))
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            _check_schema(reader.schema, width)
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
            embedding = batch.column("embedding")
            if batch.column("id").null_count + embedding.null_count + embedding.values.null_count:
                raise ValueError("ids or embeddings are missing")
        return [_block(batch) for batch in batches]
    except _FAULTS as error:
        raise StoreError(
            f"The gallery file {printable(str(path))} cannot be read: "
            f"{printable(str(error))[:300]}. Restore it from a backup, or build the gallery again."
        ) from error


def check_vectors_of(path: Path, blocks: Sequence[Block], checksums: str | None) -> None:
    """Compares the vectors of a file with their checksum, which reads all of them.

    Raises:
        StoreError: They are damaged.
    """
    if checksums is None:
        return
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(np.ascontiguousarray(block.vectors).data)
    if digest.hexdigest() != parse_json(checksums)["vectors"]:
        raise StoreError(
            f"The embeddings in the gallery file {printable(str(path))} are damaged (their "
            "checksum differs). Restore it from a backup, or build the gallery again."
        )


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_head(path: Path, checksums: Any) -> None:
    """Raises ValueError unless the size and all bytes except the vectors are as recorded."""
    keys = {"bytes": int, "head": str, "vectors": str, "ranges": list}
    if not isinstance(checksums, dict) or any(
        type(checksums.get(key)) is not kind for key, kind in keys.items()
    ):
        raise ValueError("the checksum in the journal is damaged")
    size = path.stat().st_size
    if size != checksums["bytes"]:
        raise ValueError(f"it has {size:,} bytes, not {checksums['bytes']:,} as it was written")
    end = 0
    for part in checksums["ranges"]:
        if not isinstance(part, list) or [type(number) for number in part] != [int, int]:
            raise ValueError("the checksum in the journal is damaged")
        if part[0] < end or part[1] < 0 or (end := part[0] + part[1]) > size:
            raise ValueError("the checksum in the journal is damaged")
    if _head_digest(path, checksums["ranges"]) != checksums["head"]:
        raise ValueError("it was changed after it was written (its checksum differs)")


def _head_digest(path: Path, ranges: Sequence[Sequence[int]]) -> str:
    """SHA-256 (hex) of all bytes outside the ranges [offset, length]."""
    digest = hashlib.sha256()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = 0
        for start, length in [*ranges, (len(content), 0)]:
            with memoryview(content) as view, view[end:start] as part:
                digest.update(part)
            end = start + length
    return digest.hexdigest()


def _check_schema(schema: pa.Schema, width: int | None) -> None:
    """Raises ValueError unless the columns are those of a gallery."""
    names = schema.names
    if len(set(names)) < len(names) or not {"id", "embedding"} <= set(names):
        raise ValueError("its columns are not those of a gallery")
    embedding = schema.field("embedding").type
    if (
        not pa.types.is_fixed_size_list(embedding)
        or embedding.value_type != pa.float32()
        or embedding.list_size < 1
    ):
        raise ValueError(f"its embeddings have the type {embedding}")
    if width is not None and embedding.list_size != width:
        raise ValueError(f"its embeddings are {embedding.list_size} wide, not {width}")
    if schema.field("id").type != pa.string():
        raise ValueError(f"its ids have the type {schema.field('id').type}")
    for name in names:
        if name not in ("id", "embedding") and not (
            name.startswith(PREFIX) and is_attribute(schema.field(name).type)
        ):
            raise ValueError(f"its column {name!r} is not an attribute")


def _block(batch: pa.RecordBatch) -> Block:
    vectors = vectors_of(batch.column("embedding"))
    return Block.of(pa.table(batch.drop_columns(["embedding"])), vectors)


def _batches(blocks: Iterable[Block], schema: pa.Schema) -> Iterator[tuple[pa.Table, Vectors]]:
    """Yields people that are alive with their vectors, at most `_BATCH_ROWS` at a time."""
    waiting: list[Block] = []
    rows = 0
    for block in blocks:
        for start in range(0, len(block), _BATCH_ROWS):
            part = slice(start, start + _BATCH_ROWS)
            alive = block.alive[part]
            count = int(alive.sum())
            if not count:
                continue
            if waiting and rows + count > _BATCH_ROWS:
                yield _joined(waiting, schema)
                waiting = []
                rows = 0
            waiting.append(Block(block.people.slice(start, len(alive)), block.vectors[part], alive))
            rows += count
    if waiting:
        yield _joined(waiting, schema)


def _joined(blocks: Sequence[Block], schema: pa.Schema) -> tuple[pa.Table, Vectors]:
    tables = [schema.empty_table(), *(block.living() for block in blocks)]
    people = pa.concat_tables(tables, promote_options="permissive")
    vectors = np.concatenate([block.vectors[block.alive] for block in blocks])
    return people.select(schema.names).cast(schema), np.ascontiguousarray(vectors)
