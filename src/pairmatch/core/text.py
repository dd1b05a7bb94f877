"""Text from outside: characters that a terminal obeys, and characters that UTF-8 cannot hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable

#: Template of a prompt without labels, for encoders that were trained on plain sentences.
PLAIN_PROMPT = "{text}\n{attributes}\n{metadata}"
_SURROGATES = re.compile("[\ud800-\udfff]")
#: Control characters, line and paragraph separators, and marks that reorder or hide text.
_OBEYED = "\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
_UNPRINTABLE = re.compile(f"[{_OBEYED}\ud800-\udfff]")
_UNPRINTABLE_IN_LINES = re.compile(f"(?![\n\t])[{_OBEYED}\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    """Text that a terminal shows and does not obey: control characters are written as `\\x1b`.

    Use it for every id, file name and server message that is put on a terminal or in an error.

    Args:
        text: Text of any origin.
        lines: Whether line breaks and tabs stay, as in a whole message.
    """
    pattern = _UNPRINTABLE_IN_LINES if lines else _UNPRINTABLE
    return pattern.sub(lambda match: _escaped(match[0]), text)


def printable_message(message: str) -> str:
    """A message of one line, and perhaps indented lines, that a terminal shows and does not obey.

    Line breaks are escaped, except before an indented line.
    """
    return "\n  ".join(printable(line) for line in message.split("\n  "))


def has_surrogates(text: str) -> bool:
    """Whether the text holds lone surrogates, which no UTF-8 file or SQLite text can hold.

    Python makes them from invalid bytes (`surrogateescape`) and from JSON such as `"\\ud83d"`.
    """
    return not text.isascii() and _SURROGATES.search(text) is not None


def replace_surrogates(text: str) -> str:
    """Text with each lone surrogate replaced by U+FFFD; for prose, never for ids."""
    return _SURROGATES.sub("\ufffd", text)


def spellings(person: str) -> tuple[str, ...]:
    """An id, and the same characters in the Unicode normal forms C and D, each once.

    Ids of files and of the command line are in form C; those of Python objects are in any form.
    """
    if person.isascii():
        return (person,)
    forms = (unicodedata.normalize("NFC", person), unicodedata.normalize("NFD", person))
    return tuple(dict.fromkeys((person, *forms)))


def all_spellings(ids: Iterable[str]) -> list[str]:
    """The spellings of all ids that a file can hold, each once."""
    forms = (form for person in ids if not has_surrogates(person) for form in spellings(person))
    return list(dict.fromkeys(forms))


def spelled(person: str, known: Container[str]) -> str | None:
    """The spelling of an id that is among the known ids; None if there is none."""
    return next((form for form in spellings(person) if form in known), None)


def matching(ids: Iterable[str], known: Container[str]) -> set[str]:
    """Those of the ids that are among the known ids in any spelling."""
    return {person for person in ids if spelled(person, known) is not None}


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def error_words(error: BaseException) -> str:
    """Kind and message of another library's error, in one line of at most 500 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def how_often(times: float) -> str:
    """A number of times, in words: `once`, `2.5 times`."""
    return "once" if times == 1 else f"{times:.3g} times"


def counted(number: int, noun: str) -> str:
    """A number with its noun, which gets an s unless the number is 1: `1 problem`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
