"""A gallery in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import final

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue, Side
from pairmatch.gallery.blocks import Chunk, Entry
from pairmatch.gallery.folder import Folder
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.index import Additions, BlockIndex
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.gallery.snapshot import Snapshot
from pairmatch.rules import Kind


@final
class MemoryGallery(Gallery, in_memory=True):
    """Candidates in memory; `save` writes them to a folder for `Gallery.open`.

    Args:
        side: Side of the candidates.
        made_by: Digest of the head that embedded the candidates; None if unknown.
    """

    def __init__(self, *, side: Side = "b", made_by: str | None = None) -> None:
        super().__init__(side=side, made_by=made_by)
        self._index = BlockIndex()

    def _snapshot(self) -> Snapshot:
        with self._lock:
            return self._index.snapshot()

    def _add(self, additions: Additions) -> Additions:
        additions, _ = additions.fitted(self._index.width, self._index.kinds)
        self._index.add(additions.ids, additions.attributes, additions.vectors)
        return additions

    def _remove(self, ids: Sequence[str]) -> int:
        present = self._index.present(ids)
        self._index.remove(present)
        return len(present)

    def forget(self, ids: Iterable[str]) -> int:
        count = self.remove(ids)
        with self._lock:
            self._index.drop_removed()
        return count

    def _known(self, ids: Sequence[str]) -> set[str]:
        return self._snapshot().known(ids)

    def save(self, folder: str | Path | None = None) -> Path:
        if folder is None:
            raise ConfigurationError(
                "`Gallery.save(folder)` needs a folder: this gallery is in memory."
            )
        target = Folder(self.check_target(folder), create=True)
        with self._lock, target.writing():
            snapshot = self._index.snapshot()
            target.replace(
                snapshot.blocks, side=self.side, made_by=self.made_by, width=snapshot.width
            )
        target.sweep()
        target.close()
        return target.path

    def _search(self, request: SearchRequest) -> SearchResult:
        return self._snapshot().search(request)

    def _attributes(self, ids: Sequence[str]) -> dict[str, dict[str, AttributeValue]]:
        return self._snapshot().attributes(ids)

    def _entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        return self._snapshot().entries(ids)

    def _present(self, ids: Sequence[str]) -> set[str]:
        return self._snapshot().present(ids)

    def _people(self) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
        return self._snapshot().people()

    def chunks(self, rows: int = 1024) -> Iterator[Chunk]:
        return self._snapshot().chunks(rows)

    @property
    def ids(self) -> list[str]:
        return self._snapshot().ids

    @property
    def embeddings(self) -> Vectors:
        return self._snapshot().embeddings

    @property
    def attribute_kinds(self) -> dict[str, Kind]:
        return dict(self._snapshot().kinds)

    @property
    def width(self) -> int | None:
        return self._snapshot().width

    def __len__(self) -> int:
        return len(self._snapshot())
