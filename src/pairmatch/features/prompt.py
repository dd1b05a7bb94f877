"""The text that a backbone reads for a person, rendered from a template."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.text import replace_surrogates
from pairmatch.core.types import Profile

#: Lines with an empty placeholder are omitted.
DEFAULT_TEMPLATE = """\
Profile: {text}
Facts: {attributes}
Photo: {metadata}"""


def render(profile: Profile, *, template: str | None = None, attributes: Sequence[str] = ()) -> str:
    """The prompt text of a person; empty if no placeholder has a value.

    Lone surrogates, which are no characters, are replaced by U+FFFD.

    Args:
        profile: The person. Id and photos never enter the text.
        template: Lines of text with placeholders: `{text}` (the profile text), `{attributes}`
            (those named in `attributes`, as `age: 31; region: north`), `{metadata}` (the
            generated metadata in the same form), or the name of one attribute or metadata field
            (`{caption}`). `{metadata:-caption,photo_style}` omits fields. A line with an empty
            placeholder is omitted. None for `DEFAULT_TEMPLATE`.
        attributes: Names of the profile attributes that enter `{attributes}`.

    Raises:
        ConfigurationError: The template has an invalid placeholder or unbalanced braces.
    """
    metadata = _metadata_fields(profile.metadata)
    facts = {name: profile.attributes[name] for name in attributes if name in profile.attributes}
    values = {
        **{name: _format_value(value) for name, value in metadata.items()},
        **{name: _format_value(value) for name, value in profile.attributes.items()},
        "text": profile.text.strip(),
        "attributes": _format_fields(facts),
        "metadata": _format_fields(metadata),
    }
    rendered = []
    for line in (DEFAULT_TEMPLATE if template is None else template).splitlines():
        pieces = []
        for literal, name, omitted in _parse(line):
            value: str | None = None
            if omitted:
                kept = {field: value for field, value in metadata.items() if field not in omitted}
                value = _format_fields(kept)
            elif name is not None:
                value = values.get(name, "")
            if value == "":
                break
            pieces += [literal, value or ""]
        else:
            rendered.append("".join(pieces))
    return replace_surrogates("\n".join(rendered))


def placeholders(template: str) -> list[str]:
    """Names of a template's placeholders, in order.

    Raises:
        ConfigurationError: The template has unbalanced braces, or a placeholder with an index, an
            attribute or a format.
    """
    return [name for _, name, _ in _parse(template) if name is not None]


def leave_out(template: str | None, names: Sequence[str]) -> str:
    """The template with some metadata fields omitted, for ablations.

    Args:
        template: A template that contains `{metadata}`; None for `DEFAULT_TEMPLATE`.
        names: Fields to omit; if empty, the template is returned unchanged.

    Raises:
        ConfigurationError: The template does not contain `{metadata}`.
    """
    if template is None:
        template = DEFAULT_TEMPLATE
    if not names:
        return template
    if "{metadata}" not in template:
        raise ConfigurationError(
            f"Leaving out {', '.join(names)} needs a prompt template with {{metadata}} in it."
        )
    return template.replace("{metadata}", f"{{metadata:-{','.join(names)}}}")


def check_template(template: str, profiles: Iterable[Profile]) -> None:
    """Checks that each placeholder has a value in at least one profile.

    Raises:
        ConfigurationError: Names every placeholder and every omitted field that no profile has.
    """
    names = {"text", "attributes", "metadata"}
    fields: set[str] = set()
    for profile in profiles:
        names.update(profile.attributes)
        fields.update(_metadata_fields(profile.metadata))
    names |= fields
    unknown = [
        unknown_name("placeholder in the prompt template", name, names)
        for name in placeholders(template)
        if name not in names
    ]
    if fields:  # without any metadata there is nothing to omit and nothing to compare names with
        unknown += [
            unknown_name("metadata field to leave out", name, fields)
            for _, _, omitted in _parse(template)
            for name in omitted
            if name not in fields
        ]
    if unknown:
        raise ConfigurationError(" ".join(unknown))


def _parse(template: str) -> list[tuple[str, str | None, tuple[str, ...]]]:
    """Literal text before each placeholder, the placeholder's name, and the fields it omits.

    The name is None for text after the last placeholder.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(
            f"The prompt template is not valid: {error}. Write {{{{ for a literal brace."
        ) from error
    parsed: list[tuple[str, str | None, tuple[str, ...]]] = []
    invalid = []
    for literal, name, format_spec, conversion in parts:
        omitted: tuple[str, ...] = ()
        if name == "metadata" and format_spec and format_spec.startswith("-"):
            omitted = tuple(format_spec[1:].split(","))
        if name is not None and (
            not name.isidentifier() or conversion or (format_spec and not omitted)
        ):
            invalid.append(name)
        parsed.append((literal, name, omitted))
    if invalid:
        raise ConfigurationError(
            f"The prompt template has placeholders that are not plain names: {', '.join(invalid)}."
        )
    return parsed


def _metadata_fields(metadata: Any) -> Mapping[str, Any]:
    """All fields of a pydantic model by name; empty for None."""
    if metadata is None:
        return {}
    return {name: getattr(metadata, name) for name in type(metadata).model_fields}


def _format_fields(fields: Mapping[str, Any]) -> str:
    """Fields as `name: value; name: value`, without empty ones."""
    texts = {name: _format_value(value) for name, value in fields.items()}
    return "; ".join(f"{name.replace('_', ' ')}: {text}" for name, text in texts.items() if text)


def _format_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, set | frozenset):  # in an order that every process repeats
        return ", ".join(filter(None, sorted(map(_format_value, value))))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_format_value, value)))
    return str(value).strip()
