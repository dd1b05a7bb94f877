"""Progress bars, and functions that run on many items in threads.

Bars are drawn on standard error, so that they never mix with the output of a command; in notebooks,
in the output of the cell.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

_T = TypeVar("_T")
_R = TypeVar("_R")


class _NotebookLive(Live):
    """Redraws one output of the cell by its id, which needs no widgets and stays when saved."""

    _output: Any = None

    def refresh(self) -> None:
        console = Console(file=io.StringIO(), record=True, force_jupyter=False, width=100)
        console.print(self.get_renderable())
        html = console.export_html(code_format="<pre>{code}</pre>", inline_styles=True, clear=False)
        self._show(html, console.export_text())

    def stop(self) -> None:
        super().stop()
        if self.transient and self._output is not None:
            self._show("", "")

    def _show(self, html: str, text: str) -> None:
        from IPython.display import display

        data = {"text/html": html, "text/plain": text}
        if self._output is None:
            self._output = display(data, raw=True, display_id=True)
        else:
            self._output.update(data, raw=True)


def progress_bar(shown: bool, *columns: ProgressColumn, transient: bool = False) -> Progress:
    """A bar with counts and the time left.

    Args:
        shown: Whether to draw the bar.
        columns: Columns between the counts and the time left.
        transient: Whether the bar disappears at the end.
    """
    console = Console(stderr=True)
    in_notebook = console.is_jupyter
    if in_notebook:
        console = Console(file=io.StringIO(), force_jupyter=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not shown,
        transient=transient,
    )
    if in_notebook:
        bar.live = _NotebookLive(
            console=console,
            refresh_per_second=4,
            transient=transient,
            get_renderable=bar.get_renderable,
        )
    return bar


def track(items: Iterable[_T], description: str, total: int, *, shown: bool) -> Iterator[_T]:
    """The items, with a bar that disappears at the end."""
    with progress_bar(shown, transient=True) as bar:
        yield from bar.track(items, total=total, description=description)


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


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Hides the progress bars of transformers in files and pipes, where they are a long line."""
    from transformers.utils import logging as bars

    if sys.stderr.isatty() or not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()
