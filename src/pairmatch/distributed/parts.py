"""Parts and photos on their way to the processes of a cluster."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ImageError
from pairmatch.io.images import check_image, image_bytes
from pairmatch.io.remote import is_on_every_machine, is_remote


@dataclass(frozen=True, slots=True)
class PartRecipe:
    """How to build a part again in another process: its class and constructor arguments.

    Weights do not travel: each process reads them from the path or the cache that the arguments
    name.

    Attributes:
        kind: The class.
        options: Constructor arguments.
    """

    kind: type
    options: dict[str, Any]

    @classmethod
    def of(cls, part: Any) -> PartRecipe:
        """The recipe of an instance, which has its constructor arguments as attributes."""
        names = inspect.signature(type(part)).parameters
        return cls(type(part), {name: getattr(part, name) for name in names if hasattr(part, name)})

    @property
    def uses_accelerator(self) -> bool:
        """Whether the part runs on a GPU if there is one."""
        return not str(self.options.get("device", "cpu")).startswith("cpu")

    def build(self, threads: int) -> Any:
        """The part, with as many threads as its process has CPUs."""
        options = dict(self.options)
        if "threads" in options and options["threads"] is None:
            options["threads"] = threads
        return self.kind(**options)


def sent_images(images: Sequence[Any]) -> tuple[Any, ...]:
    """Photos as nodes can read them: the bytes of files, which may be on this machine only.

    Nodes read photos in cloud storage themselves, with credentials of their own. A file that has
    become unreadable travels as its path, and is reported by the backbone.
    """
    sent: list[Any] = []
    for image in images:
        if isinstance(image, str) and is_remote(image) and is_on_every_machine(image):
            sent.append(image)
            continue
        try:
            sent.append(image_bytes(image) if isinstance(image, str | Path) else image)
        except ImageError:
            sent.append(image)
    return tuple(sent)


def photo_problem(images: Sequence[Any], otherwise: str) -> str:
    """Why one of some photos cannot be read, with its path, which the nodes do not know."""
    return next((problem for image in images if (problem := check_image(image))), otherwise)
