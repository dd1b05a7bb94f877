"""Galleries and rules without torch: what a service that only searches needs."""

import json
import subprocess
import sys

import numpy as np

from pairmatch import Gallery, Profile

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        heavy = ("torch", "torchvision", "transformers", "open_clip", "sklearn", "scipy", "PIL")
        if name.partition(".")[0] in heavy:
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Blocked())
"""
SEARCH = """
import json
import numpy as np
import pairmatch
from pairmatch.gallery import Gallery, forget
from pairmatch.gallery.export import LanceTarget, QdrantTarget
from pairmatch.rules import parse_rule

gallery = Gallery.open("gallery")
result = gallery.search(np.load("queries.npy"), 20, where="age >= 25 and region = 'north'")
gallery.add([pairmatch.Profile("new", attributes={"age": 40})], np.load("queries.npy")[:1])
forget(["new"], galleries=["gallery"])
print(json.dumps([result.ids.tolist(), result.scores.tolist()]))
assert "torch" not in sys.modules
"""
COMMANDS = """
from pairmatch.cli import app

for arguments in (["gallery", "info", "gallery"], ["forget", "p1", "--gallery", "gallery"]):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, arguments
assert "torch" not in sys.modules
"""


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED + code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )


def saved_gallery(folder):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people = [
        Profile(f"p{n}", attributes={"age": n % 60, "region": ["north", "south"][n % 2]})
        for n in range(3000)
    ]
    gallery = Gallery.of(people, vectors)
    gallery.save(folder / "gallery")
    np.save(folder / "queries.npy", vectors[:5])
    return gallery, vectors[:5]


def test_a_gallery_is_searched_without_torch(tmp_path):
    gallery, queries = saved_gallery(tmp_path)
    done = run(SEARCH, tmp_path)
    assert done.returncode == 0, done.stderr

    ids, scores = json.loads(done.stdout)
    expected = gallery.search(queries, 20, where="age >= 25 and region = 'north'")
    assert ids == expected.ids.tolist()
    assert scores == expected.scores.tolist()


def test_commands_on_galleries_need_no_torch(tmp_path):
    saved_gallery(tmp_path)
    done = run(COMMANDS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "2999"
        in run(
            "from pairmatch.cli import app\napp(['gallery', 'info', 'gallery'])", tmp_path
        ).stdout
    )
