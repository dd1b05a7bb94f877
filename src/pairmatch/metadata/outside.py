"""Text from outside: secrets, characters that no file can hold, and the length of messages."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from pairmatch.core.text import has_surrogates, printable, replace_surrogates

_log = logging.getLogger(__name__)
_HIDDEN = "…"
_SHORTEST_SECRET = 8  # shorter keys, as local servers accept them, may be ordinary words
# Keys in the provider's form, and bearer tokens; the digit keeps "bearer of good news"
_SECRETS = re.compile(
    r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_*-]{8,}|\bBearer\s+(?=\S*\d)[A-Za-z0-9._~+/=*-]{8,}",
    re.IGNORECASE,
)
_WORDS = 300  # longest message


class OutsideText:
    """Filters what servers and models write, before it is stored, shown or cut.

    Secrets are removed wherever they occur, and lone surrogates, which neither files nor the store
    can hold, are replaced by U+FFFD.

    Args:
        secrets: Keys that no text may repeat; those under 8 characters are ignored.

    Attributes:
        replaced: Number of texts with lone surrogates or invalid bytes so far.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        keys = [re.escape(key) for key in secrets if len(key) >= _SHORTEST_SECRET]
        self._keys = re.compile("|".join(keys), re.IGNORECASE) if keys else None
        self.replaced = 0

    def decode(self, content: bytes) -> str:
        """The text of a body; invalid bytes are replaced by U+FFFD."""
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.replaced += 1
            return content.decode("utf-8-sig", "replace")

    def clean(self, text: str) -> str:
        """Text without secrets and lone surrogates."""
        if has_surrogates(text):
            self.replaced += 1
            text = replace_surrogates(text)
        if self._keys is not None:
            text = self._keys.sub(_HIDDEN, text)
        return _SECRETS.sub(_HIDDEN, text)

    def clean_json(self, value: Any) -> Any:
        """A JSON value whose texts, names of attributes included, are clean."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, dict):
            return {self.clean(name): self.clean_json(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.clean_json(item) for item in value]
        return value

    def report(self) -> None:
        """Logs a warning if characters were replaced."""
        if self.replaced:
            _log.warning(
                "%d answers held characters that are not valid text: each is now \ufffd.",
                self.replaced,
            )
            self.replaced = 0

    def words(self, text: str, most: int = _WORDS) -> str:
        """Text for messages: clean, on one line, without terminal escapes, and only then cut."""
        return printable(self.clean(" ".join(text.split())))[:most]
