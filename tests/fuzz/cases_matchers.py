"""Saved matchers and the finished rows of sweeps."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from .mutations import hostile_value, json_bytes, mutate_bytes, mutate_json
from .people import crowd, fitted, pairs_of
from .subject import Case, Subject, copy

_PEOPLE = 48
_RECIPES: dict[str, dict[str, Any]] = {
    "mlp": {
        "learner": "contrastive",
        "head": ("mlp", {"width": 4, "hidden": 4}),
        "training": {"epochs": 1},
        "metadata": ("openai", {"model": "test"}),
    },
    "metric": {"learner": "metric"},
    "whitened": {"learner": "whitened", "metadata": "measured"},
    "popularity": {"learner": "popularity"},
    "frozen": {"learner": "frozen", "prompt": "{{ text }}", "prompt_attributes": ["age"]},
}


class Matchers(Subject):
    """Saved matchers that are loaded, used, and saved again."""

    name = "matchers"
    weight = 16

    def prepare(self, corpus: Path) -> None:
        people = crowd(_PEOPLE, corpus / "photos")
        for name, options in _RECIPES.items():
            fitted(pairs_of(people), corpus / "store.sqlite", **options).save(corpus / name)

    def write(self, case: Case) -> None:
        rng = case.rng
        copy(case.corpus / rng.choice(list(_RECIPES)), case.input / "m")
        copy(case.corpus / "store.sqlite", case.output / "store.sqlite")
        files = sorted(file for file in (case.input / "m").iterdir())
        record = case.input / "m" / "matcher.json"
        if rng.random() < 0.6:
            value = json.loads(record.read_text())
            value = _with_option(rng, value) if rng.random() < 0.3 else mutate_json(rng, value)
            record.write_bytes(json_bytes(value))
            return
        file = rng.choice(files)
        act = rng.randrange(8)
        if act == 0:
            file.unlink()
        elif act == 1:
            other = case.corpus / rng.choice(list(_RECIPES)) / file.name
            copy(other, file) if other.exists() else file.unlink()
        else:
            before = file.read_bytes()
            file.write_bytes(mutate_bytes(rng, before))
            if rng.random() < 0.6 and file != record:
                _repair_digest(record, before, file.read_bytes())

    def use(self, case: Case) -> None:
        import numpy as np

        from pairmatch import Matcher

        folder = case.input / "m"
        people = crowd(6, case.output / "people", "q")
        store = case.output / "store.sqlite"
        if case.rng.random() < 0.05:
            query = case.output / "people" / "q0.png"
            gallery = case.output / "people"
            options: list[Any] = ["--store", store, "--quiet"]
            case.command("recommend", folder, "--query", query, "--gallery", gallery, *options)
        matcher = Matcher.load(folder, store=store, device="cpu")
        matcher.summary()
        ranked = case.attempt(lambda: matcher.recommend(people[0], people[1:], 3))
        case.expect(
            ranked is None or all(np.isfinite(r.score) for r in ranked), "a score is not finite"
        )
        target = case.output / "again"
        if case.attempt(lambda: matcher.save(target)) is not None:
            case.whole(target, lambda path: Matcher.load(path, store=store, device="cpu"))


def _with_option(rng: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    """A record in which an option of a part has a hostile value."""
    entries = [
        entry
        for part in record["parts"].values()
        for entry in (part if isinstance(part, list) else [part])
        if entry
    ]
    entry = rng.choice(entries)
    names = [*entry["options"], "device", "schema", "base_url", "api_key_variable", "model", "path"]
    values = ("/dev/zero", "../..", "AWS_SECRET_ACCESS_KEY", "http://127.0.0.1:1/", 10**9, -1)
    value = rng.choice(values) if rng.random() < 0.5 else hostile_value(rng)
    entry["options"][rng.choice(names)] = value
    return record


def _repair_digest(record: Path, before: bytes, after: bytes) -> None:
    """Makes the record name the digest of a changed file, so that the file itself is read."""
    old, new = (hashlib.sha256(content).hexdigest() for content in (before, after))
    record.write_bytes(record.read_bytes().replace(old.encode(), new.encode()))


class Sweeps(Subject):
    """Finished rows of a sweep; damaged ones are computed again, to the same result."""

    name = "sweeps"
    weight = 1

    def prepare(self, corpus: Path) -> None:
        crowd(_PEOPLE, corpus / "photos")
        case_table = _sweep(corpus, corpus / "sweep")
        (corpus / "result.json").write_text(json.dumps(case_table))

    def write(self, case: Case) -> None:
        copy(case.corpus / "sweep", case.output / "sweep")
        files = sorted(file for file in (case.output / "sweep").rglob("*") if file.is_file())
        for file in case.rng.sample(files, 2):
            content = file.read_bytes()
            file.write_bytes(case.rng.choice((mutate_bytes(case.rng, content), b"", content[:50])))

    def use(self, case: Case) -> None:
        copy(case.corpus / "store.sqlite", case.output / "store.sqlite")
        result = _sweep(case.corpus, case.output / "sweep", case.output / "store.sqlite")
        expected = json.loads((case.corpus / "result.json").read_text())
        case.expect(result == expected, "the resumed sweep has another result")


def _sweep(corpus: Path, output: Path, store: Path | None = None) -> dict[str, Any]:
    """Ranks of a small sweep, by learner."""
    from pairmatch.experiments.sweep import grid, sweep

    people = crowd(_PEOPLE, output.parent / "photos")
    base = {"backbone": "descriptor", "metadata": None}
    result = sweep(
        pairs_of(people),
        grid(base, {"learner": ["whitened", "popularity"]}),
        baselines=("frozen", "centred"),
        repeats=1,
        folds=2,
        ks=(2,),
        output=output,
        store=store or corpus / "store.sqlite",
        device="cpu",
    )
    return {name: result.table(name).columns["rank"].tolist() for name in result.learners}
