"""A shared limit of memory for work in threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Budget:
    """Bytes that the work under way may take together; larger work runs alone.

    Args:
        size: Number of bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Waits until `amount` bytes are free, and takes them for the block."""
        amount = min(amount, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
