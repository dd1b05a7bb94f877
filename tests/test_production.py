"""The page In production: backups that are made while people come and go, and restores."""

import sqlite3
import threading
from contextlib import closing

import numpy as np

from pairmatch import Gallery, Profile
from pairmatch.gallery import ExclusionFile, forget
from pairmatch.io.store import Store


def vectors(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def back_up(source, target):
    """What `sqlite3 SOURCE ".backup TARGET"` does."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def test_a_gallery_is_copied_while_people_come_and_go(tmp_path):
    people = [Profile(f"p{number}", attributes={"age": number}) for number in range(50)]
    gallery = Gallery(side="b")
    gallery.add(people, vectors(50))
    gallery.save(tmp_path / "live")
    stop = threading.Event()

    def change():
        live = Gallery.open(tmp_path / "live")
        number = 0
        while not stop.is_set():
            live.add([Profile("guest", attributes={"age": number})], vectors(1, seed=number))
            live.remove(["guest"])
            number += 1
            if number % 20 == 0:
                live.save()  # rewrites the folder

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for number in range(5):
            Gallery.open(tmp_path / "live").save(tmp_path / f"copy-{number}")
    finally:
        stop.set()
        thread.join()
    for number in range(5):
        copy = Gallery.open(tmp_path / f"copy-{number}")
        assert [person for person in copy.ids if person != "guest"] == [one.id for one in people]
        ids = copy.search(vectors(50)[7:8], 1).ids
        assert ids.tolist() == [["p7"]]


def test_stores_and_exclusions_are_copied_while_they_are_open_and_restored(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    exclusions = ExclusionFile(tmp_path / "blocks.sqlite")
    exclusions.add([("a", "b"), ("c", "d")])
    for name in ("store", "blocks"):
        back_up(tmp_path / f"{name}.sqlite", tmp_path / f"{name}.backup")
    exclusions.add([("a", "x")])
    for opened in (store, exclusions):
        opened.close()
    for name in ("store", "blocks"):
        for rest in tmp_path.glob(f"{name}.sqlite*"):
            rest.unlink()
        (tmp_path / f"{name}.backup").rename(tmp_path / f"{name}.sqlite")
    restored = ExclusionFile(tmp_path / "blocks.sqlite", create=False)
    assert sorted(restored.pairs()) == [("a", "b"), ("c", "d")]
    Store(tmp_path / "store.sqlite", create=False).close()
    forget(["c"], exclusions=[tmp_path / "blocks.sqlite"])  # who was erased since the backup
    assert restored.pairs() == [("a", "b")]
    restored.close()
