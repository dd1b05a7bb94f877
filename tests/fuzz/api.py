"""A local server that answers as the Responses and Batch APIs do, for cases and for kills."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # where pytest finds it too

from openai_server import ANSWER, BatchServer, Server, error, reply, text

__all__ = ["ANSWER", "BatchServer", "Server", "about", "error", "generator", "reply", "text"]


def about(number: int, body: dict[str, Any]) -> dict[str, Any]:
    """A good answer that depends on the photo alone."""
    photo = body["input"][0]["content"][0]["image_url"]
    digest = hashlib.sha256(photo.encode()).hexdigest()[:12]
    return text(json.dumps({**ANSWER, "caption": f"photo {digest}"}))


def generator(url: str, **options: Any) -> Any:
    """The real client, for a server at a URL."""
    from pairmatch.metadata.openai import OpenAIMetadata

    return OpenAIMetadata(
        **{
            "model": "test",
            "base_url": url,
            "concurrency": 2,
            "timeout_seconds": 5.0,
            "max_retries": 0,
            **options,
        }
    )
