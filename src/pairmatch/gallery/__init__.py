"""Galleries: candidates that are embedded once, filtered, searched, exported and forgotten."""

from pairmatch.gallery.bulk import SlateOptions, recommend_all
from pairmatch.gallery.disk import FolderGallery
from pairmatch.gallery.eligibility import eligible
from pairmatch.gallery.exclusion_file import ExclusionFile
from pairmatch.gallery.exclusions import Exclusions
from pairmatch.gallery.forgetting import Erased, forget
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.lance import LanceGallery
from pairmatch.gallery.memory import MemoryGallery
from pairmatch.gallery.results import Recommendation, Recommendations, SearchResult
from pairmatch.gallery.several import recommend_several
from pairmatch.gallery.slates import Slates

__all__ = [
    "Erased",
    "ExclusionFile",
    "Exclusions",
    "FolderGallery",
    "Gallery",
    "LanceGallery",
    "MemoryGallery",
    "Recommendation",
    "Recommendations",
    "SearchResult",
    "SlateOptions",
    "Slates",
    "eligible",
    "forget",
    "recommend_all",
    "recommend_several",
]
