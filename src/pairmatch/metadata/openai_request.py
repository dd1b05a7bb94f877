"""Requests of OpenAI's Responses API: prompt, schema and one photo."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

from pydantic import BaseModel

from pairmatch.io.images import ImageSource, load_image
from pairmatch.metadata.models import MODELS
from pairmatch.metadata.schema import INSTRUCTIONS, json_schema

_MAX_NAME_LENGTH = 64  # of a schema, in the API
_JPEG_QUALITY = 85


def request_template(
    model: str, schema: type[BaseModel], *, max_output_tokens: int
) -> dict[str, Any]:
    """The part of the body that all requests share: everything but the photo.

    Args:
        model: Name of the model.
        schema: Pydantic model of the answer.
        max_output_tokens: Maximum number of tokens per answer, reasoning included.
    """
    text: dict[str, Any] = {
        "format": {
            "type": "json_schema",
            "name": re.sub(r"[^A-Za-z0-9_-]", "_", schema.__name__)[:_MAX_NAME_LENGTH],
            "schema": json_schema(schema),
            "strict": True,
        }
    }
    template: dict[str, Any] = {
        "model": model,
        "instructions": INSTRUCTIONS,
        "text": text,
        "max_output_tokens": max_output_tokens,
        "store": False,
    }
    facts = MODELS.get(model)
    if facts is not None and facts.verbosity is not None:
        text["verbosity"] = facts.verbosity
    if facts is not None and facts.effort is not None:
        template["reasoning"] = {"effort": facts.effort}
    return template


def photo_content(source: ImageSource, *, longest_side_px: int, detail: str) -> dict[str, str]:
    """A photo as input of a request: its pixels as a JPEG data URL, without EXIF or comments.

    Args:
        source: The photo.
        longest_side_px: Size of the longest side in pixels; larger photos are shrunk to it.
        detail: Level of detail at which the model reads the photo.

    Raises:
        ImageError: The photo cannot be read.
    """
    image = load_image(source, longest_side_px=longest_side_px)
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "input_image", "image_url": url, "detail": detail}
