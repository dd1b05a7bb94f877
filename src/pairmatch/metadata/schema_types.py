"""Python types of the attributes of a JSON Schema."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from pairmatch.core.errors import ConfigurationError

_TYPES: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}
_FORMATS: dict[str, type] = {
    "date": datetime.date,
    "date-time": datetime.datetime,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
}
_LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
#: Keywords that restrict values in ways that the types here cannot.
_UNSUPPORTED = (
    "$ref",
    "allOf",
    "anyOf",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "else",
    "if",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "then",
)


def python_type(attribute: Mapping[str, Any]) -> Any:
    """The Python type of an attribute of a JSON Schema, with its limits.

    Raises:
        ConfigurationError: The type, a format or a restriction is not supported.
    """
    unsupported = [key for key in _UNSUPPORTED if key in attribute]
    if unsupported:
        raise ConfigurationError(f"it uses {', '.join(unsupported)}.")
    if "enum" in attribute or "const" in attribute:
        return Literal[tuple(attribute.get("enum", [attribute.get("const")]))]
    limits = {_LIMITS[key]: value for key, value in attribute.items() if key in _LIMITS}
    kind = attribute.get("type")
    if kind == "array":
        item: Any = python_type(attribute.get("items", {}))
        plain: Any = set[item] if attribute.get("uniqueItems") else list[item]
    elif kind in _TYPES:
        plain = _with_format(kind, attribute.get("format"))
    else:
        raise ConfigurationError(
            f"its type is {kind!r}; use an enum, {', '.join(map(repr, _TYPES))}, or an 'array' "
            "of those."
        )
    return Annotated[plain, Field(**limits)] if limits else plain


def _with_format(kind: str, format_name: Any) -> type:
    if format_name is None:
        return _TYPES[kind]
    if kind != "string" or format_name not in _FORMATS:
        raise ConfigurationError(
            f"its format is {format_name!r}; use {', '.join(map(repr, _FORMATS))}, or none."
        )
    return _FORMATS[format_name]
