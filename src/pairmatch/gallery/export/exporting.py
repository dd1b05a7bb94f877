"""Writes the people of a gallery to another database, and keeps them the same there."""

from __future__ import annotations

from dataclasses import dataclass

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.progress import track
from pairmatch.gallery.attributes import fit_attributes
from pairmatch.gallery.export.target import Contents, ExportTarget, check_values
from pairmatch.gallery.gallery import Gallery

_ROWS = 1000  # people per transaction


@dataclass(frozen=True, slots=True)
class Exported:
    """Counts of an export.

    Attributes:
        people: Number of people in the source.
        written: Number of people that were new or changed; all, if the database does not tell.
        deleted: Number of people that were deleted because they are not in the source.
    """

    people: int
    written: int
    deleted: int


def export(
    gallery: Gallery,
    target: ExportTarget,
    *,
    delete_missing: bool = False,
    index: bool = False,
    progress: bool = False,
) -> Exported:
    """Writes all people of a gallery to a target: ids, embeddings and attributes.

    People with the same id are replaced. A repeated export changes nothing, and an interrupted one
    is completed by another call: each batch of 1,000 people is written as a whole.

    Args:
        gallery: People with their embeddings.
        target: Where they go, as `open_target` opens it.
        delete_missing: Whether people who are in the target and not in the gallery are deleted.
        index: Whether to build an approximate index afterwards.
        progress: Whether to show a progress bar.

    Raises:
        ConfigurationError: The target holds embeddings of another width, side or head, or the
            gallery holds values that databases cannot hold.
        StoreError: The database cannot be used.
    """
    width = gallery.width
    if width is None or not len(gallery):
        raise ConfigurationError("The gallery has no people: there is nothing to export.")
    contents = Contents(width, gallery.side, gallery.made_by, gallery.attribute_kinds)
    target.prepare(contents)
    seen: set[str] = set()
    written = 0
    total = -(-len(gallery) // _ROWS)
    for ids, attributes, vectors in track(
        gallery.chunks(_ROWS), "Exporting", total, shown=progress
    ):
        check_values(ids, attributes)
        fitted, _ = fit_attributes(ids, attributes, contents.kinds)
        written += target.upsert(ids, fitted, vectors)
        seen.update(ids)
    deleted = 0
    if delete_missing:
        obsolete = [person for part in target.ids() for person in part if person not in seen]
        deleted = target.delete(obsolete)
    if index:
        target.build_index()
    return Exported(len(seen), written, deleted)
