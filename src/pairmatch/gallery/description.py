"""What a gallery says about itself: side, head and width of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pairmatch.core.errors import StoreError
from pairmatch.io.files import parse_json

_MOST_WIDTH = 2**20


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
