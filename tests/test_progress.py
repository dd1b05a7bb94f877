"""Progress bars are no output, and an interruption does not wait for calls that wait."""

import threading

import pytest

from pairmatch.core import progress
from pairmatch.core.progress import map_in_threads, progress_bar, track


def test_results_are_in_order():
    assert map_in_threads(lambda number: number * number, range(50)) == [
        number * number for number in range(50)
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interruption_drops_the_calls_that_wait(monkeypatch, error):
    stopped = threading.Event()

    class Pool(progress.ThreadPoolExecutor):
        def shutdown(self, wait=True, **options):
            super().shutdown(wait=False, **options)
            stopped.set()
            super().shutdown(wait=wait)

    calls = []

    def call(number):
        calls.append(number)
        if number == 0:
            raise error
        stopped.wait(60)

    monkeypatch.setattr(progress, "ThreadPoolExecutor", Pool)
    with pytest.raises(error):
        map_in_threads(call, range(1000), workers=1)
    assert len(calls) <= 2  # the one that failed, and one that was running by then


def test_bars_go_to_standard_error(capsys):
    assert list(track([1, 2], "Reading", 2, shown=True)) == [1, 2]
    with progress_bar(True) as bar:
        bar.add_task("Extracting [red]x", total=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Extracting [red]x" in captured.err


def test_hidden_bars_write_nothing(capsys):
    assert list(track([1], "Reading", 1, shown=False)) == [1]
    assert capsys.readouterr() == ("", "")
