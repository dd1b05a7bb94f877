"""Photos of strangers, decoded in other processes, with limits on time, memory and pixels."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from PIL import Image

from pairmatch.core.errors import ImageError, PairmatchError
from pairmatch.io.images import image_size, load_image

#: Larger photos are shrunk to this longest side; no backbone reads more.
LONGEST_SIDE_PX = 2048
_START_SECONDS = 60.0
_MEMORY_BYTES = 4 * 2**30  # address space of a decoder, libraries included


class BusyError(PairmatchError, RuntimeError):
    """The service has more work than it accepts."""


class PhotoDecoder:
    """Decodes photos in a few processes that hold nothing else.

    A photo that crashes a decoder, takes too much memory or too long costs one process, which is
    replaced; nothing of it reaches the process that answers requests but pixels.

    Args:
        processes: Number of processes.
        most_pixels: Photos with more pixels are refused before they are decoded.
        seconds: Time for one photo, and for a free process.
    """

    def __init__(self, processes: int, *, most_pixels: int, seconds: float) -> None:
        self._most_pixels = most_pixels
        self._seconds = seconds
        self._free: queue.Queue[_Process] = queue.Queue()
        self._processes = processes
        for _ in range(processes):
            self._free.put(_Process(most_pixels))

    def decode(
        self, photos: Sequence[bytes], *, longest_side_px: int = LONGEST_SIDE_PX
    ) -> list[Image.Image]:
        """Upright sRGB photos, shrunk to a longest side.

        Args:
            photos: Encoded photos.
            longest_side_px: Larger photos are shrunk to this longest side.

        Raises:
            ImageError: A photo cannot be decoded, is too large, or takes too long.
            BusyError: All processes are busy.
        """
        return [
            self._decode(photo, number, longest_side_px) for number, photo in enumerate(photos, 1)
        ]

    def _decode(self, photo: bytes, number: int, longest_side_px: int) -> Image.Image:
        try:
            process = self._free.get(timeout=self._seconds)
        except queue.Empty:
            raise BusyError("All photo decoders are busy: try again later.") from None
        try:
            answer = process.decode(photo, longest_side_px, self._seconds)
        except BaseException:
            process.kill()
            process = _Process(self._most_pixels)
            raise
        finally:
            self._free.put(process)
        if isinstance(answer, str):
            raise ImageError(f"Photo {number}: {answer}")
        return answer

    def close(self) -> None:
        """Ends all processes."""
        for _ in range(self._processes):
            try:
                self._free.get(timeout=self._seconds).kill()
            except queue.Empty:
                return


class _Process:
    """One decoding process; started at once."""

    def __init__(self, most_pixels: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=_decode_for, args=(theirs, most_pixels), daemon=True
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    def decode(self, photo: bytes, longest_side_px: int, seconds: float) -> Image.Image | str:
        """The photo, or why it cannot be used.

        Raises:
            ImageError: The process ended, or took too long: it must be replaced.
            BusyError: The process does not start: it must be replaced.
        """
        try:
            self._wait_until_ready()
            self._connection.send((photo, longest_side_px))
            if not self._connection.poll(seconds):
                raise ImageError(f"A photo took longer than {seconds:g} seconds to decode.")
            size = self._connection.recv()
            if isinstance(size, str):
                return size
            return Image.frombytes("RGB", size, self._connection.recv_bytes())
        except (OSError, EOFError) as error:
            raise ImageError("A photo could not be decoded: the decoder ended.") from error

    def _wait_until_ready(self) -> None:
        """Waits until the libraries are loaded, which does not count as time for a photo."""
        if not self._is_ready:
            if not self._connection.poll(_START_SECONDS):
                raise BusyError("The photo decoder does not start: try again later.")
            self._connection.recv()
            self._is_ready = True

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._connection.close()


def _decode_for(connection: Connection, most_pixels: int) -> None:
    """Decodes photos until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    _limit_memory()
    connection.send("ready")
    while True:
        try:
            photo, longest_side_px = connection.recv()
        except (EOFError, OSError):
            return
        try:
            width, height = image_size(photo)
            if width * height > most_pixels:
                raise ImageError(f"{width} × {height} pixels, more than {most_pixels:,}; shrink it")
            image = load_image(photo, longest_side_px=longest_side_px)
        except (ImageError, MemoryError) as error:
            connection.send(str(error) or "it takes too much memory to decode.")
            continue
        connection.send(image.size)
        connection.send_bytes(image.tobytes())


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
