"""The text that a backbone reads for a person, rendered in one place."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from pairmatch.errors import ConfigurationError, unknown_name
from pairmatch.types import Profile

#: A line whose placeholder has nothing to say is left out.
DEFAULT_TEMPLATE = """\
Profile: {text}
Facts: {attributes}
Photo: {metadata}"""


def render(profile: Profile, *, template: str | None = None, attributes: Sequence[str] = ()) -> str:
    """The prompt text of a person; empty where nothing is known.

    Args:
        profile: The person; id and photos never enter the text.
        template: Lines of text with the placeholders `{text}` (the profile text), `{attributes}` (those named in
            `attributes`, as `age: 31; region: north`), `{metadata}` (what a generator wrote, alike), or the name of one
            attribute or metadata field (`{caption}`). A line is left out where one of its placeholders has nothing to
            say. None takes `DEFAULT_TEMPLATE`.
        attributes: Names of the profile attributes that enter `{attributes}`.

    Raises:
        ConfigurationError: A template with a placeholder that is none, or with unbalanced braces.
    """
    lines = (DEFAULT_TEMPLATE if template is None else template).splitlines()
    metadata = _fields(profile.metadata)
    facts = {name: profile.attributes[name] for name in attributes if name in profile.attributes}
    values = {
        **{name: _words(value) for name, value in metadata.items()},
        **{name: _words(value) for name, value in profile.attributes.items()},
        "text": profile.text.strip(),
        "attributes": _listed(facts),
        "metadata": _listed(metadata),
    }
    rendered = []
    for line in lines:
        names = placeholders(line)
        if all(values.get(name) for name in names):
            rendered.append(line.format_map(values))
    return "\n".join(rendered)


def placeholders(template: str) -> list[str]:
    """Names of the placeholders of a template, in order.

    Raises:
        ConfigurationError: Unbalanced braces, or a placeholder with an index, an attribute or a format.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"The prompt template is not valid: {error}. Write {{{{ for a brace.") from error
    names = [name for _, name, _, _ in parts if name is not None]
    wrong = [
        name
        for name, (_, _, form, turn) in zip(names, (p for p in parts if p[1] is not None), strict=True)
        if not name.isidentifier() or form or turn
    ]
    if wrong:
        raise ConfigurationError(f"The prompt template has placeholders that are no plain names: {', '.join(wrong)}.")
    return names


def check_template(template: str, profiles: Iterable[Profile]) -> None:
    """Raises ConfigurationError that names every placeholder that nobody's profile can fill."""
    names = {"text", "attributes", "metadata"}
    for profile in profiles:
        names.update(profile.attributes, _fields(profile.metadata))
    unknown = [name for name in placeholders(template) if name not in names]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("placeholder in the prompt template", n, names) for n in unknown)
        )


def _fields(metadata: Any) -> Mapping[str, Any]:
    """Fields of a pydantic model that hold something, by name."""
    if metadata is None:
        return {}
    return {name: getattr(metadata, name) for name in type(metadata).model_fields}


def _listed(fields: Mapping[str, Any]) -> str:
    words = {name: _words(value) for name, value in fields.items()}
    return "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in words.items() if value)


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(filter(None, map(_words, value)))
    return str(value).strip()
