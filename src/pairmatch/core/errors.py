"""Errors that pairmatch raises on purpose: one root; each subclass is also a standard exception.

A message says what was being done, what was expected, what came instead, and how to fix it.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from pairmatch.core.text import printable, printable_message


class PairmatchError(Exception):
    """Base class of all errors that pairmatch raises on purpose.

    Messages quote ids, file names and words of servers: characters that a terminal obeys are
    escaped, and so are line breaks, except before an indented line.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable_message(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigurationError(PairmatchError, ValueError):
    """An argument or option is invalid."""


class DataError(PairmatchError, ValueError):
    """Input data cannot be used.

    `problems` holds all problems; the message lists the first 50, and ends with `hint`.
    """

    def __init__(self, summary: str, problems: Sequence[str] = (), hint: str = "") -> None:
        self.summary = summary
        self.problems = tuple(problems)
        lines = [f"  - {printable(problem)}" for problem in self.problems[:50]]
        if len(self.problems) > 50:
            lines.append(f"  - … and {len(self.problems) - 50} more")
        if hint:
            lines.append(f"  {hint}")
        super().__init__("\n".join([summary, *lines]))


class ImageError(PairmatchError, ValueError):
    """A photo cannot be read; the message names the file."""


class PartError(PairmatchError, LookupError):
    """A part (backbone, pooler, …) is unknown, broken, registered twice or of the wrong kind."""


class ClusterError(PairmatchError, RuntimeError):
    """A cluster cannot be reached, has no room for the work, or keeps losing it."""


class BackboneError(PairmatchError, RuntimeError):
    """A backbone cannot be loaded or run: missing weights, wrong folder, not enough memory."""


class MissingWeightsError(BackboneError):
    """The weights of a hub model are not on this machine, and could not be downloaded."""


class MissingExtraError(PairmatchError, ImportError):
    """An optional dependency is not installed; the message has the pip command."""


class StoreError(PairmatchError, OSError):
    """A store or a gallery cannot be opened, read or written."""


class NotFittedError(PairmatchError, RuntimeError):
    """A matcher whose head needs training was used before `fit`."""


class SavedMatcherError(PairmatchError, ValueError):
    """A folder is not a saved matcher, or was saved by an incompatible version."""


class UploadError(PairmatchError, PermissionError):
    """Photos would leave this machine without permission."""


class GeneratorError(PairmatchError, RuntimeError):
    """A metadata generator cannot work.

    Examples: no API key, an unknown model, a server that rejects every request.
    """


_INITIALS = re.compile(r"(?<=[^_])[^_]+|_+")  # what initials leave out of a name


def suggestion(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A sentence with the closest name, " Did you mean 'mlp'?", or "" if none is similar.

    A name is also found in another case, and by its initials: `lr` is `learning_rate`.
    """
    known = list(names)
    lower = name.lower()
    close = [other for other in known if other.lower() == lower]
    close += [other for other in known if len(name) > 1 and _INITIALS.sub("", other) == lower]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f" Did you mean {close[0]!r}?" if close else ""


def id_hint(ids: Iterable[str], known: Iterable[str]) -> str:
    """A sentence on why ids match none of the known ones, " '1.0' is '1' there: …", or ""."""
    missing = list(ids)
    existing = list(known)
    for change, reason in _ID_CHANGES:
        originals = {change(person): person for person in existing}
        for person in missing:
            original = originals.get(change(person), person)
            if original != person:
                return f" {person!r} is {original!r} there: {reason}."
    return ""


#: Usual differences between ids of the same person.
_ID_CHANGES: tuple[tuple[Callable[[str], str], str], ...] = (
    (
        lambda person: person.removesuffix(".0"),
        "whole numbers were written as fractions, as pandas does if a cell of the column is "
        "missing; write ids as text or as whole numbers (Int64)",
    ),
    (
        lambda person: unicodedata.normalize("NFC", person),
        "the same characters, in another Unicode normal form",
    ),
    (lambda person: "".join(person.split()), "the spaces differ"),
    (
        lambda person: person.lstrip("0") or "0",
        "leading zeros were lost, as in spreadsheets; write ids as text",
    ),
    (str.casefold, "upper and lower case differ"),
)


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Error message for an unknown name: the closest match and the whole list."""
    names = sorted(known)
    hint = suggestion(name, names, cutoff=0.5)
    return f"Unknown {what} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


def missing_extra(what: str, package: str, extra: str) -> MissingExtraError:
    """Error for a missing optional dependency, with the pip command that installs it."""
    return MissingExtraError(
        f"{what} needs {package}, which is not installed: pip install 'pairmatch[{extra}]'."
    )
