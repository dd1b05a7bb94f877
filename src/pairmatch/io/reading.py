"""Damaged entries of a database: they count as absent, and their number is logged."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pairmatch.io.files import parse_json

_log = logging.getLogger(__name__)
#: Stands for a value that cannot be read; None is a JSON value.
MISSING: Final = object()


@dataclass(slots=True)
class Damage:
    """Counts the entries of one read that are damaged.

    Attributes:
        name: Name of the database in messages.
        what: What the entries are, in the plural.
        count: Number of damaged entries so far.
    """

    name: str
    what: str
    count: int = 0

    def json_value(self, text: object) -> Any:
        """The value of an entry, or `MISSING` if it is not JSON."""
        try:
            return parse_json(text) if isinstance(text, str) else self._missing()
        except ValueError:
            return self._missing()

    def json_object(self, text: object) -> dict[str, Any] | None:
        """The object of an entry, or None if it is not a JSON object."""
        value = self.json_value(text)
        if isinstance(value, dict):
            return value
        if value is not MISSING:
            self.count += 1
        return None

    def report(self) -> None:
        """Logs a warning if any entry was damaged."""
        if self.count:
            _log.warning(
                "%s has %d damaged %s: they count as absent.", self.name, self.count, self.what
            )

    def _missing(self) -> object:
        self.count += 1
        return MISSING


def sound_vector(dtype: object, content: object) -> np.ndarray[Any, Any] | None:
    """The vector of a row of `features`, or None if it is damaged."""
    sizes = {f"{order}f{size}": size for order in "<>" for size in (2, 4, 8)}
    if not (isinstance(dtype, str) and dtype in sizes and isinstance(content, bytes)):
        return None
    if not content or len(content) % sizes[dtype]:
        return None
    vector = np.frombuffer(content, dtype=dtype)
    return vector if np.isfinite(vector).all() else None


def sound_outcome(text: object) -> dict[str, Any] | None:
    """The outcome of a row of `metadata`, or None if it is damaged."""
    outcome = Damage("", "").json_object(text)
    is_outcome = outcome is not None and ("metadata" in outcome or "refusal" in outcome)
    return outcome if is_outcome else None
