"""Exports: people and embeddings in the database that serves an application."""

from pairmatch.gallery.export.addresses import open_target
from pairmatch.gallery.export.exporting import Exported, export
from pairmatch.gallery.export.lance import LanceTarget
from pairmatch.gallery.export.postgres import PostgresTarget
from pairmatch.gallery.export.qdrant import QdrantTarget
from pairmatch.gallery.export.records import record_export, recorded_exports
from pairmatch.gallery.export.target import Contents, ExportTarget

__all__ = [
    "Contents",
    "ExportTarget",
    "Exported",
    "LanceTarget",
    "PostgresTarget",
    "QdrantTarget",
    "export",
    "open_target",
    "record_export",
    "recorded_exports",
]
