"""Shared fixtures: a deterministic backbone, small photos, and installed plugins."""

import hashlib
import importlib
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from pairmatch import Backbone, Pair, Pairs, Profile, TokenStates
from pairmatch.io.images import image_bytes

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread pool per worker would oversubscribe the cores and run several times slower: of
    # libraries that are loaded already, of those that come later, and of child processes.
    threadpool_limits(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    torch.set_num_threads(1)

# Workers get the width of the terminal, which would break the lines that tests compare
os.environ.pop("COLUMNS", None)

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    # A shell without job control starts background jobs with Ctrl-C ignored, and so their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "data"
PLUGIN = Path(__file__).parent / "plugin"


def shared(name):
    """Returns the path to a file of the shared data; skips the test if it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data set is missing ({name})")
    return path


class HashBackbone(Backbone):
    """Derives vectors from the input bytes and counts the embedded people."""

    default_pooler = "native"
    reads_text = True

    def __init__(self, *, version: int = 1, width: int = 8):
        self.version = version
        self.width = width
        self.seen = 0
        self.max_batch_length = 4

    @property
    def dim(self):
        return self.width

    def prepare(self, items):
        return [
            b"".join([*(image_bytes(image) for image in item.images), item.text.encode()])
            for item in items
        ]

    def forward(self, batch):
        self.seen += len(batch)
        return TokenStates(pooled=torch.stack([self.vector(content) for content in batch]))

    def vector(self, content):
        seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
        return torch.from_numpy(
            np.random.default_rng([seed, self.version]).normal(size=self.width).astype(np.float32)
        )

    def fingerprint(self):
        return {"backbone": "hash", "version": self.version, "width": self.width}


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Redirects the default store to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def hash_backbone():
    return HashBackbone()


@pytest.fixture
def photo(tmp_path):
    """Writes small photo files of random pixels."""

    def make(name, seed=None, size=(12, 10)):
        rng = np.random.default_rng(abs(hash(name)) % 2**32 if seed is None else seed)
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def small_pairs(photo):
    """Creates n pairs of people with one photo each."""

    def make(n, sides=2):
        profiles = [
            Profile(
                f"{side}{i}",
                (photo(f"{side}{i}.png", seed=1000 * i + ord(side)),),
                text=f"text {side}{i}",
            )
            for i in range(n)
            for side in "ab"
        ]
        return Pairs.of(profiles, [Pair(f"a{i}", f"b{i}") for i in range(n)], sides=sides)

    return make


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Creates the dist-info folder of an installed distribution on the import path."""

    def make(name, entry_points, version="1.0", package=None):
        site = tmp_path / f"site-{name}"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = "\n".join(
            f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in points.items())
            for group, points in entry_points.items()
        )
        (info / "entry_points.txt").write_text(groups + "\n")
        for path in (site, *([package] if package else [])):
            monkeypatch.syspath_prepend(str(path))
        importlib.invalidate_caches()
        return site

    return make


@pytest.fixture
def example_plugin(install):
    """The distribution in tests/plugin, with the entry points of its pyproject.toml."""
    import tomllib

    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    site = install(
        project["name"], project["entry-points"], project["version"], package=PLUGIN / "src"
    )
    yield site
    sys.modules.pop("pairmatch_example", None)
