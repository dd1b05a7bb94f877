"""Ids that users give: checked, and found in any Unicode normal form."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import has_surrogates, printable

_SHOWN = 5


def id_text(person: object) -> str:
    """The text of an id; whole numbers are accepted, as tables have them.

    Raises:
        ConfigurationError: It is neither text nor a whole number.
    """
    if isinstance(person, str):
        return str(person)  # a subclass, such as that of NumPy, becomes plain text
    if isinstance(person, int | np.integer) and not isinstance(person, bool):
        return str(int(person))
    raise ConfigurationError(
        f"An id must be text, got {printable(repr(person))[:100]} ({type(person).__name__})."
    )


def id_texts(argument: str, ids: Iterable[object]) -> list[str]:
    """The texts of ids, in the order given.

    Args:
        argument: The argument in error messages, such as "Gallery.remove(ids)".
        ids: Ids.

    Raises:
        ConfigurationError: They are a single text, not a list, or one of them is not an id.
    """
    if isinstance(ids, str):
        raise ConfigurationError(
            f"`{argument}` takes a list of ids: write [{printable(ids)!r}] for a single one."
        )
    if not isinstance(ids, Iterable):
        raise ConfigurationError(
            f"`{argument}` takes a list of ids, got {printable(repr(ids))[:100]}."
        )
    return [id_text(person) for person in ids]


def check_distinct(ids: Iterable[str], known: Collection[str] = ()) -> None:
    """Checks that no two ids are the same characters in different Unicode normal forms.

    Args:
        ids: Ids that are added.
        known: Other spellings of these ids that are present already.

    Raises:
        ConfigurationError: Lists such ids.
    """
    forms: dict[str, str] = {unicodedata.normalize("NFC", person): person for person in known}
    problems = []
    for person in ids:
        if person.isascii():
            continue
        other = forms.setdefault(unicodedata.normalize("NFC", person), person)
        if other != person:
            problems.append(f"{other!a} and {person!a}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ConfigurationError(
            "A gallery holds each person once; these ids are the same characters in different "
            f"Unicode normal forms: {', '.join(problems[:_SHOWN])}{more}. Use one of them, or "
            "remove the other person first."
        )


def normal_forms(ids: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Ids by their Unicode normal form C, and problems of ids that no file can hold apart."""
    forms: dict[str, str] = {}
    problems = []
    for person in ids:
        other = forms.setdefault(unicodedata.normalize("NFC", person), person)
        if other != person:
            problems.append(
                f"the ids {other!a} and {person!a} are the same characters in different Unicode "
                "normal forms; use one of them."
            )
        if has_surrogates(person):
            problems.append(f"the id {person!a} is not valid Unicode.")
    return forms, problems
