"""Everything that pairmatch raises on purpose: one root, each kind also a standard exception.

A message says what was being done, what was expected, what came, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PairmatchError(Exception):
    """Root of all errors that pairmatch raises on purpose."""


class ConfigurationError(PairmatchError, ValueError):
    """An argument or an option that cannot work."""


class DataError(PairmatchError, ValueError):
    """Input data that cannot be used.

    `problems` holds every one of them, the message the first 50.
    """

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        lines = [f"  - {problem}" for problem in self.problems[:50]]
        if len(self.problems) > 50:
            lines.append(f"  - … and {len(self.problems) - 50} more")
        super().__init__("\n".join([summary, *lines]))


class ImageError(PairmatchError, ValueError):
    """A photo that cannot be read; the message names the file."""


class PartError(PairmatchError, LookupError):
    """A part (backbone, pooler, …) that is unknown, broken, claimed twice or of the wrong kind."""


class BackboneError(PairmatchError, RuntimeError):
    """A backbone that cannot be loaded or run: no weights, wrong folder, too little memory."""


class MissingExtraError(PairmatchError, ImportError):
    """An optional dependency that is not installed; the message gives the pip command."""


class StoreError(PairmatchError, OSError):
    """The feature and metadata store cannot be opened, read or written."""


class NotFittedError(PairmatchError, RuntimeError):
    """A matcher whose head needs training was asked to embed before `fit`."""


class SavedMatcherError(PairmatchError, ValueError):
    """A folder that is not a saved matcher, or one from another version."""


class UploadError(PairmatchError, PermissionError):
    """Photos would leave this machine and nobody has allowed it."""


class GeneratorError(PairmatchError, RuntimeError):
    """A metadata generator that cannot work at all.

    No key, an unknown model, a server that says no to everything.
    """


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Sentence for a name that is not known: the closest match and the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {what} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


def missing_extra(what: str, package: str, extra: str) -> MissingExtraError:
    """The error for an optional dependency, with its mend."""
    return MissingExtraError(
        f"{what} needs {package}, which is not installed: pip install 'pairmatch[{extra}]'."
    )
