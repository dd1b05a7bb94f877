"""Changes of a gallery, as its journal holds them: validated when they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.attributes import plain_attributes
from pairmatch.io.files import parse_json

_SHOWN_PROBLEMS = 5
#: Names of the Arrow files of galleries; those of earlier versions have no token.
FILE_NAME = re.compile(r"([0-9a-f]{16}-)?[0-9a-f]{32}\.arrow")


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        number: Number of the change; later changes have higher ones.
        act: `add` and `remove` concern one person, `file` adds a file of people.
        name: Id of the person, or name of the file.
        attributes: Attributes of the person.
        vector: [K] float32; None unless the act is `add`.
        checksums: JSON of the checksums of the file; None in journals of earlier versions.
    """

    number: int
    act: Literal["add", "remove", "file"]
    name: str
    attributes: dict[str, AttributeValue]
    vector: Vectors | None
    checksums: str | None


def read_changes(rows: Sequence[tuple[Any, ...]], width: int | None, gallery: str) -> list[Change]:
    """Validates the rows of a journal.

    Args:
        rows: Number, act, name, attributes and vector of each change.
        width: K of the gallery's embeddings; None if none was ever saved.
        gallery: Name of the gallery in error messages.

    Raises:
        StoreError: Lists what is damaged.
    """
    changes = []
    problems = []
    for row in rows:
        try:
            change = _change(*row)
            if change.vector is not None:
                width = width or len(change.vector)
                if len(change.vector) != width:
                    raise ValueError(f"its embedding is {len(change.vector)} wide, not {width}")
            changes.append(change)
        except (ValueError, TypeError, RecursionError) as error:
            problems.append(f"change {row[0]}: {str(error).removesuffix('.')}")
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more"
        raise StoreError(
            f"{gallery} has a damaged journal: {'; '.join(problems[:_SHOWN_PROBLEMS])}"
            f"{more if len(problems) > _SHOWN_PROBLEMS else ''}. Restore it from a backup, or "
            "build the gallery again."
        )
    return changes


def _change(number: int, act: object, name: object, attributes: object, vector: object) -> Change:
    if act not in ("add", "remove", "file"):
        raise ValueError("its act is unknown")
    if not isinstance(name, str):
        raise ValueError("its name is not text")
    if attributes is not None and not isinstance(attributes, str):
        raise ValueError("its attributes are not text")
    if act == "file":
        if not FILE_NAME.fullmatch(name):
            raise ValueError("its file name is not one of pairmatch")
        return Change(number, act, name, {}, None, attributes)
    if act == "remove":
        return Change(number, act, name, {}, None, None)
    return Change(number, act, name, _attributes(attributes), _vector(vector), None)


def _attributes(content: str | None) -> dict[str, AttributeValue]:
    values = parse_json(content or "{}")
    if not isinstance(values, dict):
        raise ValueError("its attributes are not a mapping")
    try:
        return plain_attributes(values)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _vector(content: object) -> Vectors:
    if not isinstance(content, bytes) or not content or len(content) % 4:
        raise ValueError("its embedding is damaged")
    vector = np.frombuffer(content, np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("its embedding has values that are not finite")
    return vector
