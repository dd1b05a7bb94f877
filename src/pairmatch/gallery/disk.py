"""A gallery in a folder: memory-mapped files and a journal of changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.blocks import Block, Chunk, Entry
from pairmatch.gallery.folder import JOURNAL, Folder
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.index import Additions, BlockIndex
from pairmatch.gallery.journal import Change
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.gallery.snapshot import Snapshot
from pairmatch.io.files import is_present
from pairmatch.rules import Kind

_MAX_JOURNALED = 1000  # people; more are added as a separate file


@final
class FolderGallery(Gallery):
    """Candidates in a folder, as `Gallery.save` wrote them.

    Vectors are memory-mapped, so opening reads none. Changes are on disk when a call returns, and
    the next search of each process that has the folder open sees them.

    Args:
        folder: Folder with a gallery.

    Raises:
        StoreError: The folder holds no gallery, a damaged one, or one of a newer format.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._folder = Folder(Path(folder))
        self._index = BlockIndex()
        self._last_change = 0
        self._generation = 0
        self._refresh()

    @classmethod
    def exists(cls, folder: str | Path) -> bool:
        """Whether a folder holds a gallery that `save` wrote."""
        return is_present(Path(folder) / JOURNAL)

    def _snapshot(self, *, vectors: bool = False) -> Snapshot:
        """The people of this moment.

        Args:
            vectors: Whether vectors will be read, and are compared with their checksums before.
        """
        with self._lock:
            self._refresh()
            if vectors:
                self._folder.check_vectors()
            return self._index.snapshot()

    def _add(self, additions: Additions) -> Additions:
        with self._folder.writing():
            self._refresh()
            additions, _ = additions.fitted(self._index.width, self._index.kinds)
            ids, attributes, vectors = additions.ids, additions.attributes, additions.vectors
            if len(ids) > _MAX_JOURNALED:
                self._folder.append_file([Block.from_people(ids, attributes, vectors)])
            else:
                self._folder.append(ids, attributes, vectors)
        self._refresh()
        return additions

    def _remove(self, ids: Sequence[str]) -> int:
        with self._folder.writing():
            self._refresh()
            present = self._index.present(ids)
            self._folder.append_removals(present)
        self._refresh()
        return len(present)

    def forget(self, ids: Iterable[str]) -> int:
        count = self.remove(ids)
        with self._lock:
            self._index.drop_removed()
        self.save()
        self._folder.check_erased()
        return count

    def _known(self, ids: Sequence[str]) -> set[str]:
        return self._snapshot().known(ids) | self._folder.journaled(ids)

    def save(self, folder: str | Path | None = None) -> Path:
        is_own = folder is None
        target = self._folder if folder is None else Folder(self.check_target(folder), create=True)
        with self._lock, target.writing():
            snapshot = self._snapshot(vectors=True)
            target.replace(
                snapshot.blocks, side=self.side, made_by=self.made_by, width=snapshot.width
            )
        self._refresh()
        target.sweep()
        if not is_own:
            target.close()
        return target.path

    def _search(self, request: SearchRequest) -> SearchResult:
        return self._snapshot(vectors=True).search(request)

    def _attributes(self, ids: Sequence[str]) -> dict[str, dict[str, AttributeValue]]:
        return self._snapshot().attributes(ids)

    def _entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        return self._snapshot(vectors=True).entries(ids)

    def _present(self, ids: Sequence[str]) -> set[str]:
        return self._snapshot().present(ids)

    def _people(self) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
        return self._snapshot().people()

    def chunks(self, rows: int = 1024) -> Iterator[Chunk]:
        return self._snapshot(vectors=True).chunks(rows)

    @property
    def ids(self) -> list[str]:
        return self._snapshot().ids

    @property
    def embeddings(self) -> Vectors:
        return self._snapshot(vectors=True).embeddings

    @property
    def attribute_kinds(self) -> dict[str, Kind]:
        return dict(self._snapshot().kinds)

    @property
    def width(self) -> int | None:
        return self._snapshot().width

    def __len__(self) -> int:
        return len(self._snapshot())

    def _refresh(self) -> None:
        """Applies the changes of all processes since the last refresh."""
        with self._lock:
            while True:
                try:
                    self._apply_changes()
                    return
                except StoreError:
                    # Another process may have saved in the meantime, which replaces all files
                    about, _ = self._folder.changes_since(self._generation, self._last_change)
                    if about["generation"] == self._generation:
                        raise

    def _apply_changes(self) -> None:
        about, changes = self._folder.changes_since(self._generation, self._last_change)
        if about["generation"] != self._generation:
            self._index = BlockIndex(about["width"])
            self._last_change = 0
            self._generation = about["generation"]
            self.side = about["side"]
            self.made_by = about["made_by"]
            self._folder.forget_files()
        additions: list[Change] = []
        for change in changes:
            if change.act != "add" and additions:
                self._replay(additions)
                additions = []
            if change.act == "add":
                additions.append(change)
            elif change.act == "remove":
                self._index.remove([change.name])
            else:
                self._add_file(change)
            self._last_change = change.number
        if additions:
            self._replay(additions)

    def _add_file(self, change: Change) -> None:
        blocks = self._folder.read(change, self._index.width)
        try:
            self._index.add_mapped(blocks)
        except ConfigurationError as error:
            raise StoreError(f"The gallery {self._folder.path} is damaged: {error}") from error

    def _replay(self, additions: Sequence[Change]) -> None:
        latest = {change.name: change for change in additions}
        vectors = [change.vector for change in latest.values() if change.vector is not None]
        width = self._index.width
        try:
            if width is not None and len(vectors[0]) != width:
                raise ConfigurationError("embeddings have different widths.")
            attributes = [change.attributes for change in latest.values()]
            self._index.add(list(latest), attributes, np.stack(vectors))
        except ConfigurationError as error:
            raise StoreError(f"The gallery {self._folder.path} is damaged: {error}") from error
