"""A table of dated figures: one row per run, so that a decline shows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import printable
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.io.files import lock
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.matcher.matcher import Matcher
from pairmatch.matcher.recommending import head_digest

_COLUMNS = (
    "time",
    "matcher",
    "train_matches",
    "train_people",
    "target",
    "queries",
    "mrr",
    "mrr_low",
    "mrr_high",
    "r_at_10",
    "r_at_10_low",
    "r_at_10_high",
    "chance_mrr",
    "frozen_mrr",
    "seen_queries",
    "seen_mrr",
)
_HEADER = csv_bytes(_COLUMNS, [])


def append_figures(
    path: str | Path,
    matcher: Matcher,
    evaluation: Evaluation,
    *,
    time: datetime.datetime | None = None,
) -> dict[str, Any]:
    """Appends the figures of a run to a CSV file, in one piece, and creates it if necessary.

    Several processes may append to one file. Rows hold the time of the run (UTC), the beginning of
    the digest of the head, the numbers of matches and people that it was trained on, the target,
    and MRR and R@10 with intervals, beside chance, frozen features and people who were seen in
    training.

    Args:
        path: Path to the file.
        matcher: Fitted matcher.
        evaluation: Its evaluation.
        time: Time of the run; by default now.

    Returns:
        The row, by column.

    Raises:
        ConfigurationError: The file exists and is no such table.
    """
    moment = datetime.datetime.now(datetime.UTC) if time is None else time
    row = {"time": moment.isoformat(timespec="seconds"), **_figures(matcher, evaluation)}
    line = csv_bytes(_COLUMNS, [row])[len(_HEADER) :]
    target = Path(path)
    with target.open("a+b", buffering=0) as file:  # every write goes to the end
        lock(file.fileno(), wait=True)
        file.seek(0)
        begin = file.read(len(_HEADER))
        check_history(begin, target)
        file.seek(0, 2)
        file.write(line if begin else _HEADER + line)
    return row


def check_history(begin: bytes, path: Path) -> None:
    """Raises ConfigurationError if a file begins otherwise than a table of figures."""
    if begin and not begin.startswith(_HEADER):
        raise ConfigurationError(
            f"{printable(str(path))} is no table of figures that pairmatch wrote: nothing is "
            "appended to it. Name another file."
        )


def _figures(matcher: Matcher, evaluation: Evaluation) -> dict[str, Any]:
    both = evaluation.both
    row: dict[str, Any] = {
        "matcher": (head_digest(matcher.head) or "")[:12],
        "train_matches": (matcher.data or {}).get("pairs"),
        "train_people": (matcher.data or {}).get("people"),
        "target": evaluation.target,
        "queries": evaluation.queries,
        "mrr": both.mrr,
        "r_at_10": both.recall.get(10),
        "chance_mrr": evaluation.chance.mrr,
        "frozen_mrr": None if evaluation.frozen is None else evaluation.frozen.both.mrr,
        "seen_queries": None if evaluation.seen is None else evaluation.seen.queries,
        "seen_mrr": None if evaluation.seen is None else evaluation.seen.both.mrr,
    }
    bounds = {"mrr": both.mrr_interval, "r_at_10": both.recall_interval.get(10)}
    for name, interval in bounds.items():
        row[f"{name}_low"], row[f"{name}_high"] = interval or (None, None)
    return {
        name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()
    }
