"""A service of drawn people: two matchers, galleries, photos and test pairs."""

from __future__ import annotations

from pathlib import Path

from pairmatch.data import Pairs
from pairmatch.experiments.demo import draw_people
from pairmatch.io.files import write_file
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.matcher.matcher import Matcher
from pairmatch.serving.settings import ExplorerSettings, ServiceSettings

_PAIRS = 240
_LEARNERS = ("best", "ridge")  # the second is compared with the first


def build_demo(folder: Path, token: str | None = None, *, pairs: int = _PAIRS) -> ServiceSettings:
    """Draws people and fits matchers on them.

    Args:
        folder: Empty folder for everything.
        token: Token of the service; None if none is required.
        pairs: Number of pairs to draw.
    """
    data = Pairs.read(draw_people(folder / "people", pairs=pairs), check_images=False)
    train, validation, test = data.split(seed=0)
    store = folder / "store.sqlite"
    galleries: dict[str, dict[str, Path]] = {}
    for learner in _LEARNERS:
        matcher = Matcher(backbone="descriptor", metadata="none", learner=learner, store=store)
        matcher.fit(train, validation).save(folder / learner)
        galleries[learner] = {}
        for side, ids in (("a", data.ids_a), ("b", data.ids_b)):
            people = [data.profiles[person] for person in ids]
            path = folder / f"{learner}-{side}"
            matcher.gallery(people, side="a" if side == "a" else "b").save(path)
            galleries[learner][side] = path
    rows = [{"id_a": pair.a, "id_b": pair.b} for pair in test.pairs]
    write_file(folder / "test.csv", csv_bytes(["id_a", "id_b"], rows))
    first, second = _LEARNERS
    return ServiceSettings(
        matcher=folder / first,
        galleries=galleries[first],
        options={"store": store},
        store=store,
        token=token,
        explorer=ExplorerSettings(
            photos=folder / "people" / "images",
            pairs=folder / "test.csv",
            matcher=folder / second,
            galleries=galleries[second],
            is_demo=True,
        ),
        read_only=True,
    )
