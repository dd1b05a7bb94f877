"""Candidates that were embedded once: kept, grown, shrunk, filtered, searched and forgotten."""

from pairmatch.gallery.bulk import Slates, recommend_all
from pairmatch.gallery.exclusions import Exclusions
from pairmatch.gallery.forgetting import Erased, forget
from pairmatch.gallery.gallery import Gallery, eligible
from pairmatch.gallery.results import Found, Recommendation, Recommendations

__all__ = [
    "Erased",
    "Exclusions",
    "Found",
    "Gallery",
    "Recommendation",
    "Recommendations",
    "Slates",
    "eligible",
    "forget",
    "recommend_all",
]
