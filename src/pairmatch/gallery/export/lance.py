"""LanceDB as a target of exports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.types import Profile
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.export.target import Contents, ExportTarget, batches, merged_kinds
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.lance import LanceGallery
from pairmatch.gallery.request import SearchRequest


@final
class LanceTarget(ExportTarget):
    """A LanceDB folder, which is a [`LanceGallery`][pairmatch.gallery.lance.LanceGallery] too.

    Rules are evaluated by pairmatch, not by LanceDB.

    Args:
        folder: Path to the folder.

    Raises:
        MissingExtraError: lancedb is not installed.
        StoreError: The folder holds something else.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).expanduser().resolve()
        super().__init__(f"lance:{self._folder}")
        self._gallery = LanceGallery(self._folder) if LanceGallery.exists(self._folder) else None

    @property
    def contents(self) -> Contents | None:
        gallery = self._gallery
        if gallery is None or gallery.width is None:
            return None
        return Contents(gallery.width, gallery.side, gallery.made_by, gallery.attribute_kinds)

    def prepare(self, contents: Contents) -> None:
        existing = self.contents
        if existing is not None:
            existing.check_same(contents, self.address)
            merged_kinds(existing.kinds, contents.kinds, self.address)
        elif self._gallery is None:
            self._gallery = LanceGallery(self._folder, side=contents.side, made_by=contents.made_by)

    def _opened(self) -> Gallery:
        if self._gallery is None:
            self._existing()
        assert self._gallery is not None
        return self._gallery

    def upsert(self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors) -> int:
        people = [
            Profile(person, attributes=row) for person, row in zip(ids, attributes, strict=True)
        ]
        self._opened().add(people, vectors)
        return len(people)

    def delete(self, ids: Sequence[str]) -> int:
        return self._opened().remove(ids)

    def forget(self, ids: Sequence[str]) -> int:
        return self._opened().forget(ids)

    def known(self, ids: Collection[str]) -> set[str]:
        return self._opened().known(ids)

    def ids(self) -> Iterator[list[str]]:
        yield from batches(self._opened().ids)

    def build_index(self) -> None:
        assert isinstance(self._gallery, LanceGallery)
        self._gallery.build_index("IVF_HNSW_SQ")

    def _filter(self, request: SearchRequest, contents: Contents, person: Attributes) -> Any:
        return None if request.rule is None else (request.rule.text, dict(person), request.mutual)

    def _nearest(
        self, query: Vectors, k: int, condition: Any, exact: bool
    ) -> list[tuple[str, float]]:
        where, person, mutual = (None, {}, False) if condition is None else condition
        gallery = self._opened()
        bonus = np.zeros(len(gallery), np.float32) if exact else None  # such searches are exact
        result = gallery.search(
            query[None], k, where=where, asking=[person], mutual=mutual, bonus=bonus
        )
        return result.candidates(0)

    def close(self) -> None:
        """Does nothing: LanceDB keeps no connection."""
