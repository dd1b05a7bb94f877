"""The text that a backbone reads for a person, rendered in one place."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.types import Profile

#: A line whose placeholder has nothing to say is left out.
DEFAULT_TEMPLATE = """\
Profile: {text}
Facts: {attributes}
Photo: {metadata}"""


def render(profile: Profile, *, template: str | None = None, attributes: Sequence[str] = ()) -> str:
    """The prompt text of a person; empty where nothing is known.

    Args:
        profile: The person; id and photos never enter the text.
        template: Lines of text with the placeholders `{text}` (the profile text), `{attributes}`
            (those named in `attributes`, as `age: 31; region: north`), `{metadata}` (what a
            generator wrote, alike), or the name of one attribute or metadata field (`{caption}`);
            `{metadata:-caption,photo_style}` leaves fields out. A line is left out where one of its
            placeholders has nothing to say. None takes `DEFAULT_TEMPLATE`.
        attributes: Names of the profile attributes that enter `{attributes}`.

    Raises:
        ConfigurationError: A template with a placeholder that is none, or with unbalanced braces.
    """
    metadata = _fields(profile.metadata)
    lines = (DEFAULT_TEMPLATE if template is None else template).splitlines()
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
        words = []
        for before, name, without in _parsed(line):
            left = {field: value for field, value in metadata.items() if field not in without}
            value = None if name is None else _listed(left) if without else values.get(name, "")
            if value == "":
                break
            words += [before, value or ""]
        else:
            rendered.append("".join(words))
    return "\n".join(rendered)


def placeholders(template: str) -> list[str]:
    """Names of the placeholders of a template, in order.

    Raises:
        ConfigurationError: Unbalanced braces, or a placeholder with an index, an attribute or a
            format.
    """
    return [name for _, name, _ in _parsed(template) if name is not None]


def leave_out(template: str | None, names: Sequence[str]) -> str:
    """The template without some metadata fields: what an ablation compares.

    Args:
        template: With `{metadata}` in it; None for `DEFAULT_TEMPLATE`.
        names: Fields that are left out; none gives the template as it is.

    Raises:
        ConfigurationError: The template does not hold `{metadata}`, so there is nothing to leave
            out of.
    """
    found = DEFAULT_TEMPLATE if template is None else template
    if names and "{metadata}" not in found:
        raise ConfigurationError(
            f"Leaving out {', '.join(names)} needs a prompt template with {{metadata}} in it."
        )
    return found.replace("{metadata}", f"{{metadata:-{','.join(names)}}}") if names else found


def _parsed(template: str) -> list[tuple[str, str | None, tuple[str, ...]]]:
    """Text before each placeholder, its name (None at the end), and the fields that it leaves out."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(
            f"The prompt template is not valid: {error}. Write {{{{ for a brace."
        ) from error
    found, wrong = [], []
    for before, name, form, turn in parts:
        without = (
            tuple(form[1:].split(","))
            if name == "metadata" and form and form.startswith("-")
            else ()
        )
        if name is not None and (not name.isidentifier() or turn or (form and not without)):
            wrong.append(name)
        found.append((before, name, without))
    if wrong:
        raise ConfigurationError(
            f"The prompt template has placeholders that are no plain names: {', '.join(wrong)}."
        )
    return found


def check_template(template: str, profiles: Iterable[Profile]) -> None:
    """Raises ConfigurationError that names every placeholder that nobody's profile can fill."""
    names, fields = {"text", "attributes", "metadata"}, set[str]()
    for profile in profiles:
        names.update(profile.attributes)
        fields.update(_fields(profile.metadata))
    names |= fields
    unknown = [
        unknown_name("placeholder in the prompt template", name, names)
        for name in placeholders(template)
        if name not in names
    ]
    if (
        fields
    ):  # where nobody has metadata, there is nothing to leave out and nothing to compare with
        unknown += [
            unknown_name("metadata field to leave out", name, fields)
            for _, _, without in _parsed(template)
            for name in without
            if name not in fields
        ]
    if unknown:
        raise ConfigurationError(" ".join(unknown))


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
