"""Attributes that a generator writes from people's photos, as text for the backbone."""

from pairmatch.metadata.annotate import Annotation, Estimate, annotate, estimate
from pairmatch.metadata.exchange import correct, export_metadata, import_metadata
from pairmatch.metadata.schema import Metadata

__all__ = [
    "Annotation",
    "Estimate",
    "Metadata",
    "annotate",
    "correct",
    "estimate",
    "export_metadata",
    "import_metadata",
]
