"""Attributes of many people as columns, the input of rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue

Kind = Literal["number", "text", "bool"]
Mask = npt.NDArray[np.bool_]

KIND_LABELS: dict[Kind, str] = {"number": "a number", "text": "text", "bool": "true or false"}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One attribute of n people.

    Attributes:
        kind: `number`, `text` or `bool`.
        values: [n] float64, [n] bool, or for text [n] int64 indices into `categories`.
        known: [n] bool: False if the attribute is missing.
        categories: Distinct texts.
    """

    kind: Kind
    values: npt.NDArray[Any]
    known: Mask
    categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Sequence[AttributeValue | None]) -> Column:
        """Converts Python values; None and NaN are missing values.

        Raises:
            ConfigurationError: The values have more than one kind.
        """
        values = [None if value != value else value for value in values]  # NaN
        kinds = {kind_of(value) for value in values if value is not None}
        if len(kinds) > 1:
            shown = " and ".join(sorted(map(KIND_LABELS.__getitem__, kinds)))
            raise ConfigurationError(
                f"An attribute must have the same kind for all people, got {shown}."
            )
        known = np.array([value is not None for value in values], bool)
        if kinds == {"text"}:
            texts = ["" if value is None else str(value) for value in values]
            codes = {text: code for code, text in enumerate(dict.fromkeys(texts))}
            indices = np.array([codes[text] for text in texts], np.int64)
            return cls("text", indices, known, tuple(codes))
        kind: Kind = "bool" if kinds == {"bool"} else "number"
        filled = [0 if value is None else value for value in values]
        return cls(kind, np.array(filled, bool if kind == "bool" else np.float64), known)

    @property
    def true(self) -> Mask:
        """[n] bool: where a condition is known to be true."""
        return self.values.astype(bool) & self.known

    @property
    def false(self) -> Mask:
        """[n] bool: where a condition is known to be false."""
        return ~self.values.astype(bool) & self.known


Columns = Mapping[str, Column]


def kind_of(value: object) -> Kind:
    """Returns the kind of an attribute value.

    Raises:
        ConfigurationError: The value is not text, a number or a bool.
    """
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | float | np.integer | np.floating):
        return "number"
    if isinstance(value, str):
        return "text"
    raise ConfigurationError(
        f"An attribute must be text, a number or a bool, got {type(value).__name__}."
    )


def person_columns(attributes: Mapping[str, AttributeValue]) -> dict[str, Column]:
    """Converts the attributes of one person to columns of length 1."""
    return {name: Column.of([value]) for name, value in attributes.items()}
