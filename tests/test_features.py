"""Embedding: each input once ever, resumable after a kill, never stale."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import HashBackbone
from PIL import Image

from pairmatch import FeatureStore, Profile, TokenStates
from pairmatch.core.errors import BackboneError, ConfigurationError, DataError
from pairmatch.core.types import Item
from pairmatch.features.extractor import join
from pairmatch.features.poolers import MeanPooler, NativePooler

NATIVE = [NativePooler()]


@pytest.fixture
def people(photo):
    return [Profile(f"p{i}", (photo(f"{i}.png", seed=i),), text=f"text {i}") for i in range(11)]


def test_vectors_are_the_backbones_and_in_order(tmp_path, people, hash_backbone):
    store = FeatureStore(tmp_path / "s.sqlite")
    (h,) = store.embed(people, hash_backbone, NATIVE)
    assert h.dtype == np.float32
    expected = [
        hash_backbone.vector(p.images[0].read_bytes() + f"Profile: {p.text}".encode())
        for p in people
    ]
    assert np.array_equal(h, torch.stack(expected))
    assert np.array_equal(store.embed(people[::-1], hash_backbone, NATIVE)[0], h[::-1])


def test_each_input_runs_once_ever(tmp_path, people, hash_backbone):
    store = FeatureStore(tmp_path / "s.sqlite")
    twins = [*people, Profile("twin", people[0].images, people[0].text)]
    store.embed(twins, hash_backbone, NATIVE)
    assert hash_backbone.seen == len(people)
    store.embed(twins, hash_backbone, NATIVE)
    assert hash_backbone.seen == len(people)
    again = HashBackbone()
    FeatureStore(tmp_path / "s.sqlite").embed(twins, again, NATIVE)
    assert again.seen == 0
    assert store.store.counts()["people"] == 12


class Tokens(HashBackbone):
    """Token states and a pooled output from one pass."""

    def forward(self, batch):
        pooled = super().forward(batch).pooled
        states = torch.stack([pooled, 3 * pooled], dim=1)
        return TokenStates(
            states=states, mask=torch.ones(states.shape[:2], dtype=torch.bool), pooled=pooled
        )


def test_all_poolers_come_from_one_pass(tmp_path, people):
    backbone = Tokens()
    native, mean = FeatureStore(tmp_path / "s.sqlite").embed(
        people, backbone, [NativePooler(), MeanPooler()]
    )
    assert backbone.seen == len(people)
    assert np.allclose(mean, 2 * native)
    FeatureStore(tmp_path / "s.sqlite").embed(people, backbone, [MeanPooler()])
    assert backbone.seen == len(people)


@pytest.mark.parametrize(
    "change",
    [
        "pixel",
        "text",
        "prompt",
        "prompt attribute",
        "pooler",
        "backbone option",
        "store dtype",
        "one more photo",
    ],
)
def test_whatever_changes_changes_the_key(tmp_path, people, change):
    store, backbone, poolers, options = FeatureStore(tmp_path / "s.sqlite"), Tokens(), NATIVE, {}
    person = Profile("p", people[0].images, "hello", {"age": 30})
    store.embed([person], backbone, poolers)
    assert backbone.seen == 1
    if change == "pixel":
        image = Image.open(person.images[0])
        red, *rest = image.getpixel((3, 3))
        image.putpixel((3, 3), (red ^ 1, *rest))
        image.save(person.images[0])
    elif change == "text":
        person = Profile("p", person.images, "hallo", person.attributes)
    elif change == "prompt":
        options = {"prompt": "About: {text}"}
    elif change == "prompt attribute":
        options = {"prompt_attributes": ["age"]}
    elif change == "pooler":
        poolers = [MeanPooler()]
    elif change == "backbone option":
        backbone = Tokens(version=2)
        backbone.seen = 1
    elif change == "store dtype":
        store = FeatureStore(store.store, dtype="float16")
    else:
        person = Profile("p", (*person.images, people[1].images[0]), person.text, person.attributes)
    store.embed([person], backbone, poolers, **options)
    assert backbone.seen == 2
    store.embed([person], backbone, poolers, **options)
    assert backbone.seen == 2


def test_what_a_backbone_does_not_read_does_not_enter_its_key(tmp_path, people):
    backbone = HashBackbone()
    backbone.reads_text = False
    store = FeatureStore(tmp_path / "s.sqlite")
    store.embed(people, backbone, NATIVE)
    store.embed([Profile(p.id, p.images, "another text") for p in people], backbone, NATIVE)
    assert backbone.seen == len(people)


def test_float16_is_half_the_space(tmp_path, people, hash_backbone):
    exact = FeatureStore(tmp_path / "a.sqlite").embed(people, hash_backbone, NATIVE)[0]
    half = FeatureStore(tmp_path / "b.sqlite", dtype="float16").embed(
        people, hash_backbone, NATIVE
    )[0]
    assert half.dtype == np.float32
    assert np.array_equal(half, exact.astype(np.float16).astype(np.float32))
    with pytest.raises(ConfigurationError, match="'float32' or 'float16', got 'int8'"):
        FeatureStore(tmp_path / "c.sqlite", dtype="int8")


def test_batches_keep_to_the_budget_and_go_longest_first(tmp_path, people):
    class Long(HashBackbone):
        batches: ClassVar = []

        def length(self, item):
            return 2 + int(item.text.split()[-1])

        def forward(self, batch):
            self.batches.append(len(batch))
            return super().forward(batch)

    backbone = Long()
    backbone.max_batch_length = 24
    FeatureStore(tmp_path / "s.sqlite").embed(people, backbone, NATIVE)
    # Lengths 12, 11, …, 2: 12·2 = 24, 10·2, 8·3, 5·4
    assert backbone.batches == [2, 2, 3, 4]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
        ),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_budget_and_goes_on(tmp_path, people, error):
    sizes = []

    class Small(HashBackbone):
        def forward(self, batch):
            sizes.append(len(batch))
            if len(batch) > 2:
                raise error
            return super().forward(batch)

    backbone = Small()
    backbone.max_batch_length = 8
    (h,) = FeatureStore(tmp_path / "s.sqlite").embed(people, backbone, NATIVE)
    assert backbone.seen == len(people)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert np.array_equal(
        h, FeatureStore(tmp_path / "t.sqlite").embed(people, HashBackbone(), NATIVE)[0]
    )

    class Tiny(HashBackbone):
        def forward(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BackboneError, match="Tiny ran out of memory on a single person"):
        FeatureStore(tmp_path / "u.sqlite").embed(people, Tiny(), NATIVE)

    class Broken(HashBackbone):
        def forward(self, batch):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):  # a bug is no lack of memory
        FeatureStore(tmp_path / "v.sqlite").embed(people, Broken(), NATIVE)


def test_everybody_else_goes_on_when_photos_are_broken(tmp_path, people):
    class Decodes(HashBackbone):
        def prepare(self, items):
            from pairmatch.io.images import load_image

            for item in items:
                for image in item.images:
                    load_image(image)
            return super().prepare(items)

    for index in (1, 6):
        people[index].images[0].write_bytes(b"no photo")
    backbone = Decodes()
    store = FeatureStore(tmp_path / "s.sqlite")
    with pytest.raises(
        DataError, match=r"2 of 11 people cannot be embedded \(everybody else is in the store\)"
    ) as caught:
        store.embed(people, backbone, NATIVE)
    assert [problem.split(":")[0] for problem in sorted(caught.value.problems)] == ["p1", "p6"]
    assert backbone.seen == 9
    store.embed([p for p in people if p.id not in ("p1", "p6")], backbone, NATIVE)
    assert backbone.seen == 9


def test_people_with_nothing_to_read_are_named_before_anything_runs(
    tmp_path, people, hash_backbone
):
    people = [*people, Profile("empty"), Profile("lost", (tmp_path / "gone.png",))]
    with pytest.raises(DataError) as caught:
        FeatureStore(tmp_path / "s.sqlite").embed(people, hash_backbone, NATIVE)
    assert caught.value.problems == (
        "empty: has nothing that HashBackbone reads (photos or text)",
        f"lost: {tmp_path / 'gone.png'}: No such file or directory.",
    )
    assert hash_backbone.seen == 0


def test_nobody_is_an_error(tmp_path, people, hash_backbone):
    for profiles, poolers in (([], NATIVE), (people, [])):
        with pytest.raises(ConfigurationError, match="at least one person and one pooler"):
            FeatureStore(tmp_path / "s.sqlite").embed(profiles, hash_backbone, poolers)


def test_values_that_are_not_finite_are_refused(tmp_path, people):
    class Overflows(HashBackbone):
        def vector(self, content):
            return super().vector(content) * 1e6

    store = FeatureStore(tmp_path / "s.sqlite", dtype="float16")
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(BackboneError, match=r"not finite in float16 for .*: try dtype='float32'"),
    ):
        store.embed(people, Overflows(), NATIVE)
    assert store.store.counts()["features"] == 0


def test_joining_scales_weighs_and_concatenates():
    a, b = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[10.0], [-5.0]])
    assert np.allclose(join([a, b], [1.0, 0.5]), [[0.6, 0.8, 0.5], [0, 1, -0.5]])
    assert np.array_equal(join([a]), a)  # one backbone alone is not scaled
    with pytest.raises(
        ConfigurationError, match=r"one positive number per backbone \(2\), got \[1.0\]"
    ):
        join([a, b], [1.0])


RUN = textwrap.dedent(
    """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from conftest import HashBackbone
    from pairmatch import FeatureStore, Profile
    from pairmatch.features.poolers import NativePooler

    class Mortal(HashBackbone):
        def forward(self, batch):
            if sys.argv[4] == "die" and self.seen >= 20:
                os.kill(os.getpid(), 9)
            return super().forward(batch)

    people = [Profile(f"p{i:02d}", (path,)) for i, path in enumerate(sorted(Path(sys.argv[2]).iterdir()))]
    backbone = Mortal()
    h = FeatureStore(sys.argv[3]).embed(people, backbone, [NativePooler()])[0]
    print(backbone.seen, float(h.sum()))
    """
)


def run(photos, store, mode):
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-c", RUN, tests, str(photos), str(store), mode]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.fixture
def fifty(photo):
    paths = [photo(f"{i:02d}.png", seed=i) for i in range(50)]
    return paths[0].parent


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, fifty):
    store = tmp_path / "s.sqlite"
    killed = run(fifty, store, "die")
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM features").fetchone() == (20,)
    connection.close()
    out, _ = run(fifty, store, "live").communicate(timeout=120)
    assert out.split()[0] == "30"  # only the rest
    fresh, _ = run(fifty, tmp_path / "fresh.sqlite", "live").communicate(timeout=120)
    assert out.split()[1] == fresh.split()[1]


def test_two_processes_embed_at_once(tmp_path, fifty):
    store = tmp_path / "s.sqlite"
    both = [run(fifty, store, "live") for _ in range(2)]
    results = [process.communicate(timeout=120)[0].split() for process in both]
    assert results[0][1] == results[1][1]
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*), count(DISTINCT key) FROM features").fetchone() == (
        50,
        50,
    )


def test_prepare_runs_ahead_in_other_threads(tmp_path, people):
    import threading

    class Watched(HashBackbone):
        threads: ClassVar = set()

        def prepare(self, items):
            self.threads.add(threading.current_thread().name.split("_")[0])
            return super().prepare(items)

    FeatureStore(tmp_path / "s.sqlite").embed(people, Watched(), NATIVE)
    assert "pairmatch-prepare" in Watched.threads
    assert Watched().prepare([Item((people[0].images[0],), "x")])
