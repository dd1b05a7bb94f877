"""Stores: SQLite files with changed bytes and with hostile rows."""

from pathlib import Path
from typing import Any

from .cases_galleries import mutate_database
from .mutations import mutate_bytes
from .people import vectors
from .subject import Case, Subject, copy

_KEYS = tuple(f"{number:064x}" for number in range(40))


class Stores(Subject):
    """Stores that are read, written and erased from."""

    name = "store"
    weight = 10

    def prepare(self, corpus: Path) -> None:
        from pairmatch.io.store import Store

        usage = {"input_tokens": 1, "output_tokens": 1, "cached_tokens": 0, "usd": 0.1}
        with Store(corpus / "store.sqlite") as store:
            store.put_features(dict(zip(_KEYS, vectors(len(_KEYS)), strict=True)))
            store.link([(f"person-{number}", key) for number, key in enumerate(_KEYS)])
            store.put_metadata(
                {key: {"metadata": {"caption": "x" * 50}, "usage": usage} for key in _KEYS},
                model="m",
            )
            store.put_corrections({"person-1": {"age": 3}})
            store.put_batch("b", "g", _KEYS[:20])

    def write(self, case: Case) -> None:
        rng = case.rng
        path = case.output / "store.sqlite"
        copy(case.corpus / "store.sqlite", path)
        if rng.random() < 0.4:
            mutate_database(rng, path)
            return
        content = path.read_bytes()
        if rng.random() < 0.4:
            content = mutate_bytes(rng, content[:100]) + content[100:]
        else:
            content = mutate_bytes(rng, content)
        path.write_bytes(content)
        if rng.random() < 0.1:
            path.with_name("store.sqlite-wal").write_bytes(mutate_bytes(rng, content[:9000]))

    def use(self, case: Case) -> None:
        import numpy as np

        from pairmatch.io.store import Store

        person = "person-5"
        steps: list[Any] = [
            lambda store: store.features(_KEYS),
            lambda store: store.metadata(_KEYS),
            lambda store: (store.corrections(["person-1"]), store.counts()),
            lambda store: (store.spent(), store.batches("g")),
            lambda store: store.put_features({"n": np.ones(3, np.float32)}),
            lambda store: store.link([("p", _KEYS[0]), ("q", _KEYS[3])]),
            lambda store: store.put_metadata({_KEYS[1]: {"metadata": {}}}, batch="b"),
            lambda store: store.forget([person]),
        ]
        path = case.output / "store.sqlite"
        with Store(path) as store:
            for step in steps:
                forgotten = case.attempt(lambda step=step: step(store)) is not None
        if forgotten and path.exists():
            case.expect(person.encode() + b"\0" not in path.read_bytes(), "an id was not erased")
