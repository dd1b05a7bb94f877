"""The state of a gallery at one moment; a search uses one while other threads add and remove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pairmatch.core.arrays import Vectors
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.attributes import attributes_of
from pairmatch.gallery.blocks import Block, Chunk, Entry, chunks_of
from pairmatch.gallery.ranking import rank
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.rules import Kind

_BATCH_ROWS = 1024  # people that are converted to Python values at a time


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Immutable blocks of people, with the kinds of their attributes and the width of vectors.

    Attributes:
        blocks: People in order.
        kinds: Kind of each attribute, by name.
        width: K of the embeddings; None if none was ever added.
    """

    blocks: Sequence[Block]
    kinds: Mapping[str, Kind]
    width: int | None

    def __len__(self) -> int:
        return sum(int(block.alive.sum()) for block in self.blocks)

    @property
    def ids(self) -> list[str]:
        """Ids in order."""
        return [person for block in self.blocks for person in block.living()["id"].to_pylist()]

    @property
    def embeddings(self) -> Vectors:
        """[N, K] float32 in order; a copy, unless a single block holds all people."""
        parts = [
            block.vectors if block.alive.all() else block.vectors[block.alive]
            for block in self.blocks
        ]
        if not parts:
            return np.empty((0, self.width or 0), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """People in order, `rows` at a time."""
        return chunks_of(self.blocks, rows)

    def people(self) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
        """Id and attributes of each person in order."""
        for block in self.blocks:
            for batch in block.living().to_batches(max_chunksize=_BATCH_ROWS):
                table = pa.Table.from_batches([batch])
                yield from zip(table["id"].to_pylist(), attributes_of(table), strict=True)

    def present(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in the gallery."""
        wanted = pa.array(ids, pa.string())
        return {
            person
            for block in self.blocks
            for person in block.ids.take(pa.array(block.find(wanted))).to_pylist()
        }

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that the blocks hold, those of removed people included."""
        wanted = pa.array(ids, pa.string())
        masks = [pc.is_in(block.ids, value_set=wanted) for block in self.blocks]
        return {
            person
            for block, mask in zip(self.blocks, masks, strict=True)
            for person in block.ids.filter(mask).to_pylist()
        }

    def attributes(self, ids: Sequence[str]) -> dict[str, dict[str, AttributeValue]]:
        """Attributes of those people that are in the gallery, by id."""
        wanted = pa.array(ids, pa.string())
        attributes = {}
        for block in self.blocks:
            for row in block.find(wanted):
                attributes[block.ids[int(row)].as_py()] = block.attributes(int(row))
        return attributes

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Attributes and embeddings of those people that are in the gallery, by id."""
        wanted = pa.array(ids, pa.string())
        return {
            block.ids[row].as_py(): (block.attributes(row), np.array(block.vectors[row]))
            for block in self.blocks
            for row in block.find(wanted).tolist()
        }

    def search(self, request: SearchRequest) -> SearchResult:
        """The best eligible candidates of each query."""
        count = len(self)
        is_new = not self.kinds and not self.blocks
        request = request.fitted(self.width, self.kinds, is_new=is_new).capped(count)
        bonus = request.checked_bonus(count) if request.bonus is not None else None
        if bonus is not None and len(self.blocks):
            alive = np.concatenate([block.alive for block in self.blocks])
            rows = np.zeros(len(alive), np.float32)
            rows[alive] = bonus
            bonus = rows
        result = rank(self.blocks, request, bonus).result(self.blocks, request.filters)
        if request.with_attributes:
            return result.with_attributes(self.attributes(result.people))
        return result
