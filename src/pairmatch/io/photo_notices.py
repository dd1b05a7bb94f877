"""Warnings about photos: damaged side information, in one warning per run rather than per photo."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

_log = logging.getLogger(__name__)
_MOST_NAMED = 5
_lock = Lock()
_open_runs = 0
_waiting: dict[str, str] = {}
_told: set[str] = set()


@contextmanager
def grouped_notices() -> Iterator[None]:
    """Reports all damage noted in this block, in whichever thread, in one warning at its end."""
    global _open_runs
    with _lock:
        _open_runs += 1
    try:
        yield
    finally:
        with _lock:
            _open_runs -= 1
            waiting = dict(_waiting) if _open_runs == 0 else {}
            if waiting:
                _waiting.clear()
        if waiting:
            _warn(waiting)


def note_damage(name: str, problems: Sequence[str], *, is_file: bool) -> None:
    """Notes that a photo was read although its side information is damaged.

    Args:
        name: The photo, as a terminal may show it.
        problems: What is damaged, such as `EXIF data`.
        is_file: Whether the name is a path; each file is reported once per process.
    """
    with _lock:
        if is_file and name in _told:
            return
        if is_file:
            _told.add(name)
        if _open_runs:
            _waiting[name] = ", ".join(problems)
            return
    _warn({name: ", ".join(problems)})


def _warn(damaged: dict[str, str]) -> None:
    named = [f"{name} ({what})" for name, what in list(damaged.items())[:_MOST_NAMED]]
    if len(damaged) > len(named):
        named.append(f"and {len(damaged) - len(named)} others")
    photos = "1 photo has" if len(damaged) == 1 else f"{len(damaged)} photos have"
    _log.warning(
        "%s damaged side information, which is ignored where it cannot be read: %s.",
        photos,
        ", ".join(named),
    )
