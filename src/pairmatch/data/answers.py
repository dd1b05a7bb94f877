"""Likes, times and outcomes of pairs: what cells mean, contradictions, and repeated decisions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import numpy as np

from pairmatch.core.decisions import UNKNOWN, Decisions
from pairmatch.core.errors import suggestion
from pairmatch.core.types import Outcome, Pair, outcome_of

OUTCOMES = ("match", "rejected", "open")
_YES = ("1", "yes", "y", "true", "t", "like")
_NO = ("0", "no", "n", "false", "f", "dislike", "pass")
_EPOCH = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
_BASIC_DATE = re.compile(r"[12]\d{7}")
# How BigQuery and Snowflake write zones: `18:30:00 UTC`, `18:30:00.000 -0700`
_ZONE = re.compile(r"(?<=\d) (?:UTC|GMT|Z|([+-]\d\d:?\d\d))$")
_LIKES = {True: "yes", False: "no", None: "not known"}


def parse_outcome(cell: Any) -> Outcome | None:
    """The outcome in a cell, in any case; None if it is missing.

    Raises:
        ValueError: The cell is none of the outcomes; the message lists them.
    """
    if cell is None:
        return None
    text = str(cell).lower()
    if text not in OUTCOMES:
        raise ValueError(
            f"{text!r} is neither 'match', 'rejected' nor 'open'.{suggestion(text, OUTCOMES)}"
        )
    return cast(Outcome, text)


def parse_like(cell: Any) -> bool | None:
    """What a cell of `a_likes` or `b_likes` says; None if it is missing.

    Raises:
        ValueError: The cell is neither yes nor no; the message says what it may be.
    """
    if cell is None:
        return None
    text = str(cell).lower()
    text = {"1.0": "1", "0.0": "0"}.get(text, text)  # pandas, if a cell of the column is missing
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise ValueError(f"{cell!r} is neither yes ({', '.join(_YES)}) nor no ({', '.join(_NO)}).")


def parse_time(cell: Any) -> datetime | None:
    """The time in a cell; None if it is missing. A time without a zone is in UTC.

    Raises:
        ValueError: The cell is not an ISO 8601 time; the message says how to write one.
    """
    if cell is None:
        return None
    is_number = not isinstance(cell, str) or (
        _EPOCH.fullmatch(cell) and not _BASIC_DATE.fullmatch(cell)
    )
    if is_number:
        raise ValueError(
            f"{cell!r} is a number, whose unit and zero are unknown. Write times as "
            "2026-10-01T18:30:00+09:00, for example with pandas.to_datetime(column, unit='s', "
            "utc=True)."
        )
    zoned = _ZONE.sub(lambda zone: zone[1] or "+00:00", cell)
    try:
        return datetime.fromisoformat(zoned)
    except ValueError:
        raise ValueError(
            f"{cell!r} is not a time of ISO 8601, such as 2026-10-01 or 2026-10-01T18:30:00+09:00."
        ) from None


def contradiction(pair: Pair) -> str:
    """How the outcome of a pair contradicts its likes; blank if it does not."""
    likes = (pair.a_likes, pair.b_likes)
    if likes == (None, None):
        return ""
    implied = outcome_of(*likes)
    if pair.outcome == implied or (implied == "open" and pair.outcome != "open"):
        return ""
    return (
        f"the outcome is {pair.outcome!r}, but a_likes is {_LIKES[pair.a_likes]} and b_likes is "
        f"{_LIKES[pair.b_likes]}."
    )


def decisions_of(pairs: Sequence[Pair], ids_a: Sequence[str], ids_b: Sequence[str]) -> Decisions:
    """What each side said in each pair; rows are positions in the ids of both sides."""
    row_a = {person: row for row, person in enumerate(ids_a)}
    row_b = {person: row for row, person in enumerate(ids_b)}
    rows = [(row_a[pair.a], row_b[pair.b]) for pair in pairs]
    likes = [[UNKNOWN if like is None else int(like) for like in pair.likes] for pair in pairs]
    answers = np.array(likes, np.int8).reshape(-1, 2)
    return Decisions(np.array(rows, np.int64).reshape(-1, 2), answers[:, 0], answers[:, 1])


def latest(pairs: Sequence[Pair]) -> Pair:
    """What holds after repeated decisions on one pair: the latest answer of each side.

    An outcome without likes replaces earlier answers, unless it is `open`. Of equal times, the last
    in the list is the latest.

    Args:
        pairs: Entries of the same two people, all with a time, in any order and direction.
    """
    ordered = sorted(pairs, key=lambda pair: pair.time)  # type: ignore[arg-type,return-value]
    result = ordered[0]
    for pair in ordered[1:]:
        if pair.a != result.a:
            result = _reversed(result)
        result = _after(result, pair)
    return result


def repeated_note(repeated: Collection[Sequence[Pair]]) -> str:
    """How many pairs were decided several times, given all entries of each."""
    entries = sum(map(len, repeated))
    pairs = "1 pair was" if len(repeated) == 1 else f"{len(repeated):,} pairs were"
    return (
        f"{pairs} decided several times ({entries:,} rows); the latest answer of each side counts."
    )


def _after(earlier: Pair, pair: Pair) -> Pair:
    """What holds after a later entry of the same two people."""
    a_likes, b_likes = earlier.likes
    outcome = earlier.outcome
    if pair.outcome == "rejected" and pair.likes == (None, None):  # it is not known who declined
        a_likes = b_likes = None
        outcome = "rejected"
    elif pair.likes != (None, None):
        a_likes = a_likes if pair.likes[0] is None else pair.likes[0]
        b_likes = b_likes if pair.likes[1] is None else pair.likes[1]
        outcome = outcome_of(a_likes, b_likes)
    return replace(
        pair,
        outcome=outcome,
        group=pair.group or earlier.group,
        pool=pair.pool or earlier.pool,
        a_likes=a_likes,
        b_likes=b_likes,
    )


def _reversed(pair: Pair) -> Pair:
    return replace(pair, a=pair.b, b=pair.a, a_likes=pair.b_likes, b_likes=pair.a_likes)


def faults(pair: Pair) -> Iterator[str]:
    """Problems of a pair by itself."""
    if pair.outcome not in OUTCOMES:
        yield f"the outcome {pair.outcome!r} is neither 'match', 'rejected' nor 'open'."
    if pair.a == pair.b:
        yield f"{pair.a!r} is paired with itself."
    for name, like in (("a_likes", pair.a_likes), ("b_likes", pair.b_likes)):
        if like is not None and like not in (True, False):
            yield f"{name} must be True, False or None, got {like!r}."
            return
    fault = contradiction(pair)
    if fault and pair.outcome in OUTCOMES:
        yield fault
    if pair.time is not None and not (isinstance(pair.time, datetime) and pair.time == pair.time):
        yield f"time must be a datetime or None, got {type(pair.time).__name__}."  # also NaT
    if pair.pool is not None and not isinstance(pair.pool, str):
        yield f"pool must be a text or None, got {pair.pool!r}."
