"""Addresses of targets, as the command line takes them and as records of exports keep them."""

from __future__ import annotations

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import printable
from pairmatch.gallery.export.lance import LanceTarget
from pairmatch.gallery.export.postgres import PostgresTarget
from pairmatch.gallery.export.qdrant import QdrantTarget
from pairmatch.gallery.export.target import ExportTarget

_FORMS = (
    "postgresql://user@host/database#table, http://host:6333#collection (Qdrant), "
    "qdrant:FOLDER#collection or lance:FOLDER"
)


def open_target(address: str) -> ExportTarget:
    """Opens a target by its address; the part after `#` is `people` by default.

    Args:
        address: `postgresql://user@host/database#table`, `http://host:6333#collection` for a server
            of Qdrant, `qdrant:FOLDER#collection` for its local mode, or `lance:FOLDER`.

    Raises:
        ConfigurationError: The address has another form, or holds a secret.
        MissingExtraError: The client is not installed.
        StoreError: The database cannot be reached.
    """
    place, _, name = address.partition("#")
    name = name or "people"
    scheme = place.partition(":")[0]
    if scheme in ("postgresql", "postgres"):
        return PostgresTarget(place, name)
    if scheme in ("http", "https"):
        return QdrantTarget(place, name)
    folder = place.partition(":")[2]
    if scheme == "qdrant" and folder:
        return QdrantTarget(folder, name)
    if scheme == "lance" and folder:
        return LanceTarget(folder)
    raise ConfigurationError(
        f"{printable(address.rpartition('@')[2])!r} is no address of a target: write {_FORMS}."
    )
