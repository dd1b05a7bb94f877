"""Valid people, photos, pairs and matchers, from which cases are made."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pairmatch import Matcher, Pair, Pairs, Profile

REGIONS = ("north", "south", "Da'ejeon", "대전", None)


def photo_bytes(number: int, size: tuple[int, int] = (16, 16), suffix: str = "png") -> bytes:
    """A small photo of random pixels."""
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    return buffer.getvalue()


def attributes(number: int) -> dict[str, Any]:
    """Attributes of a person, some of them missing."""
    values = {
        "age": None if number % 7 == 3 else 20 + number * 5 % 40,
        "region": REGIONS[number % 5],
        "smoker": (True, False, None)[number % 3],
        "height": None if number % 4 == 1 else 1.5 + number % 9 / 20,
        "income": float(number % 6 * 1000),
        "children": number % 3,
    }
    return {name: value for name, value in values.items() if value is not None}


def crowd(count: int, folder: Path | None = None, prefix: str = "p") -> list[Profile]:
    """People with attributes, and with photos if a folder for them is given."""
    people = []
    for number in range(count):
        images: tuple[Path, ...] = ()
        if folder is not None:
            path = folder / f"{prefix}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo_bytes(number))
            images = (path,)
        person = f"{prefix}{number}"
        people.append(
            Profile(person, images, text=f"text of {person}", attributes=attributes(number))
        )
    return people


def vectors(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    """Embeddings of unit length, [count, width] float32."""
    values = np.random.default_rng(seed).normal(size=(count, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def pairs_of(people: list[Profile]) -> Pairs:
    """The first half matched with the second half."""
    half = len(people) // 2
    return Pairs.of(
        people, [Pair(a.id, b.id) for a, b in zip(people[:half], people[half:], strict=True)]
    )


def fitted(pairs: Pairs, store: Path, **options: Any) -> Matcher:
    """A matcher fitted to pairs, on image descriptors."""
    matcher = Matcher(
        **{"backbone": "descriptor", "metadata": None, "learner": "whitened", **options},
        store=store,
        device="cpu",
    )
    return matcher.fit(pairs)
