"""What a gallery says about itself: side, head and width of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pairmatch.core.display import html_display
from pairmatch.core.errors import StoreError
from pairmatch.core.text import printable
from pairmatch.io.files import parse_json

if TYPE_CHECKING:
    from pairmatch.gallery.gallery import Gallery

_MOST_WIDTH = 2**20
_MOST_NAMES = 8  # attributes that are listed


def one_line(gallery: Gallery) -> str:
    """Kind, number of people and side: `MemoryGallery(1,000 people, side='b')`."""
    return f"{type(gallery).__name__}({len(gallery):,} people, side={gallery.side!r})"


def html_of(gallery: Gallery) -> str:
    """The same as a table for notebooks, with the width and names of attributes; no values."""
    names = list(gallery.attribute_kinds)
    attributes = ", ".join(map(printable, names[:_MOST_NAMES])) + ", …" * (len(names) > _MOST_NAMES)
    rows = [
        [type(gallery).__name__, ""],
        ["people", f"{len(gallery):,}"],
        ["side", gallery.side],
        ["width of embeddings", str(gallery.width or "unknown")],
        ["attributes", attributes or "none"],
    ]
    return html_display(rows, [])


def checked_description(content: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    """Validates the description of a saved gallery.

    Args:
        content: JSON, or values by name.

    Returns:
        `side`, `made_by`, `width` and `generation`; those that are missing are None, "b" or 0.

    Raises:
        StoreError: Lists all values that are invalid.
    """
    try:
        values = content if isinstance(content, Mapping) else parse_json(content)
    except ValueError as error:
        raise StoreError(f"The description of the gallery is damaged: {error}.") from error
    if not isinstance(values, Mapping):
        raise StoreError("The description of the gallery is damaged: it is not a mapping.")
    about = {
        "side": values.get("side", "b"),
        "made_by": values.get("made_by"),
        "width": values.get("width"),
        "generation": values.get("generation", 0),
    }
    width = about["width"]
    is_valid = {
        "side": about["side"] in ("a", "b"),
        "made_by": about["made_by"] is None or isinstance(about["made_by"], str),
        "width": width is None or (type(width) is int and 0 < width <= _MOST_WIDTH),
        "generation": type(about["generation"]) is int and 0 <= about["generation"] < 2**62,
    }
    problems = [
        f"{name} is {str(about[name])[:50]!r}" for name, fine in is_valid.items() if not fine
    ]
    if problems:
        raise StoreError(f"The description of the gallery is damaged: {', '.join(problems)}.")
    return about
