"""Progress bars, and functions that run on many items in threads.

Bars are drawn on standard error, so that they never mix with the output of a command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import track as _track

_T = TypeVar("_T")
_R = TypeVar("_R")


def progress_bar(shown: bool, *columns: ProgressColumn) -> Progress:
    """A bar with counts and the time left.

    Args:
        shown: Whether to draw the bar.
        columns: Columns between the counts and the time left.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )


def track(items: Iterable[_T], description: str, total: int, *, shown: bool) -> Iterator[_T]:
    """The items, with a bar that disappears at the end."""
    yield from _track(
        items,
        description,
        total,
        console=Console(stderr=True),
        disable=not shown,
        transient=True,
    )


def map_in_threads(
    function: Callable[[_T], _R],
    items: Sequence[_T],
    description: str = "",
    *,
    shown: bool = False,
    workers: int | None = None,
) -> list[_R]:
    """Results of a function, in order. An exception or Ctrl-C drops the calls that wait.

    Args:
        function: Function of one item.
        items: The items.
        description: What the progress bar says.
        shown: Whether to draw a progress bar.
        workers: Number of threads; by default one that suits the machine.
    """
    with ThreadPoolExecutor(workers) as pool:
        try:
            results = pool.map(function, items)
            return list(track(results, description, len(items), shown=shown))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
