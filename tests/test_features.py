"""Feature extraction: each input runs once, runs resume after a kill, and keys cover all inputs."""

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
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.core.errors import BackboneError, ConfigurationError, DataError
from pairmatch.core.types import Item
from pairmatch.features.extractor import ExtractionRequest, join, plan_extractions
from pairmatch.features.plan import format_duration
from pairmatch.features.poolers import MeanPooler, NativePooler

NATIVE = [NativePooler()]


@pytest.fixture
def people(photo):
    return [Profile(f"p{i}", (photo(f"{i}.png", seed=i),), text=f"text {i}") for i in range(11)]


def test_features_are_the_backbone_output_in_profile_order(tmp_path, people, hash_backbone):
    store = FeatureStore(tmp_path / "s.sqlite")
    (h,) = store.extract(people, hash_backbone, NATIVE)
    assert h.dtype == np.float32
    expected = [
        hash_backbone.vector(p.images[0].read_bytes() + f"Profile: {p.text}".encode())
        for p in people
    ]
    assert np.array_equal(h, torch.stack(expected))
    assert np.array_equal(store.extract(people[::-1], hash_backbone, NATIVE)[0], h[::-1])


def test_each_distinct_input_runs_once(tmp_path, people, hash_backbone):
    store = FeatureStore(tmp_path / "s.sqlite")
    twins = [*people, Profile("twin", people[0].images, people[0].text)]
    store.extract(twins, hash_backbone, NATIVE)
    assert hash_backbone.seen == len(people)
    store.extract(twins, hash_backbone, NATIVE)
    assert hash_backbone.seen == len(people)
    second_backbone = HashBackbone()
    FeatureStore(tmp_path / "s.sqlite").extract(twins, second_backbone, NATIVE)
    assert second_backbone.seen == 0
    assert store.store.counts()["people"] == 12


class Tokens(HashBackbone):
    """Returns token states and a pooled output from the same pass."""

    def forward(self, batch):
        pooled = super().forward(batch).pooled
        states = torch.stack([pooled, 3 * pooled], dim=1)
        return TokenStates(
            states=states, mask=torch.ones(states.shape[:2], dtype=torch.bool), pooled=pooled
        )


def test_all_poolers_share_a_pass(tmp_path, people):
    backbone = Tokens()
    native, mean = FeatureStore(tmp_path / "s.sqlite").extract(
        people, backbone, [NativePooler(), MeanPooler()]
    )
    assert backbone.seen == len(people)
    assert np.allclose(mean, 2 * native)
    FeatureStore(tmp_path / "s.sqlite").extract(people, backbone, [MeanPooler()])
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
def test_every_change_to_an_input_changes_its_key(tmp_path, people, change):
    store = FeatureStore(tmp_path / "s.sqlite")
    backbone = Tokens()
    poolers = NATIVE
    options = {}
    person = Profile("p", people[0].images, "hello", {"age": 30})
    store.extract([person], backbone, poolers)
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
    store.extract([person], backbone, poolers, **options)
    assert backbone.seen == 2
    store.extract([person], backbone, poolers, **options)
    assert backbone.seen == 2


def test_unread_inputs_do_not_enter_the_key(tmp_path, people):
    backbone = HashBackbone()
    backbone.reads_text = False
    store = FeatureStore(tmp_path / "s.sqlite")
    store.extract(people, backbone, NATIVE)
    store.extract([Profile(p.id, p.images, "another text") for p in people], backbone, NATIVE)
    assert backbone.seen == len(people)


def test_float16_features_are_rounded_float32_features(tmp_path, people, hash_backbone):
    exact = FeatureStore(tmp_path / "a.sqlite").extract(people, hash_backbone, NATIVE)[0]
    half = FeatureStore(tmp_path / "b.sqlite", dtype="float16").extract(
        people, hash_backbone, NATIVE
    )[0]
    assert half.dtype == np.float32
    assert np.array_equal(half, exact.astype(np.float16).astype(np.float32))
    with pytest.raises(ConfigurationError, match="'float32' or 'float16', got 'int8'"):
        FeatureStore(tmp_path / "c.sqlite", dtype="int8")


def test_batches_fit_the_budget_and_run_longest_first(tmp_path, people):
    class Long(HashBackbone):
        batches: ClassVar = []

        def length(self, item):
            return 2 + int(item.text.split()[-1])

        def forward(self, batch):
            self.batches.append(len(batch))
            return super().forward(batch)

    backbone = Long()
    backbone.max_batch_length = 24
    FeatureStore(tmp_path / "s.sqlite").extract(people, backbone, NATIVE)
    # Lengths 12, 11, …, 2: 12·2 = 24, 10·2, 8·3, 5·4
    assert backbone.batches == [2, 2, 3, 4]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 1 bytes."
        ),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_halves_the_budget(tmp_path, people, error):
    sizes = []

    class Small(HashBackbone):
        def forward(self, batch):
            sizes.append(len(batch))
            if len(batch) > 2:
                raise error
            return super().forward(batch)

    backbone = Small()
    backbone.max_batch_length = 8
    (h,) = FeatureStore(tmp_path / "s.sqlite").extract(people, backbone, NATIVE)
    assert backbone.seen == len(people)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert np.array_equal(
        h, FeatureStore(tmp_path / "t.sqlite").extract(people, HashBackbone(), NATIVE)[0]
    )

    class Tiny(HashBackbone):
        def forward(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BackboneError, match="Tiny ran out of memory on a single person"):
        FeatureStore(tmp_path / "u.sqlite").extract(people, Tiny(), NATIVE)

    class Broken(HashBackbone):
        def forward(self, batch):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):  # a bug, not a lack of memory
        FeatureStore(tmp_path / "v.sqlite").extract(people, Broken(), NATIVE)


def test_unreadable_photos_do_not_stop_extraction(tmp_path, people):
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
        DataError,
        match=r"Features of 2 of 11 people cannot be extracted \(all others are in the store\)",
    ) as caught:
        store.extract(people, backbone, NATIVE)
    assert [problem.split(":")[0] for problem in sorted(caught.value.problems)] == ["p1", "p6"]
    assert backbone.seen == 9
    store.extract([p for p in people if p.id not in ("p1", "p6")], backbone, NATIVE)
    assert backbone.seen == 9


def test_people_without_readable_inputs_are_reported_before_extraction(
    tmp_path, people, hash_backbone
):
    people = [*people, Profile("empty"), Profile("lost", (tmp_path / "gone.png",))]
    with pytest.raises(DataError) as caught:
        FeatureStore(tmp_path / "s.sqlite").extract(people, hash_backbone, NATIVE)
    assert caught.value.problems == (
        "empty: has nothing that HashBackbone reads (photos or text)",
        f"lost: {tmp_path / 'gone.png'}: No such file or directory.",
    )
    assert hash_backbone.seen == 0


def test_one_sentence_says_that_the_backbone_reads_nothing_of_all_people(tmp_path):
    people = [Profile(str(number), attributes={"age": number}) for number in range(50)]
    message = r"None of the 50 people has anything that DescriptorBackbone reads \(photos\)"
    with pytest.raises(DataError, match=message) as caught:
        FeatureStore(tmp_path / "s.sqlite").extract(people, DescriptorBackbone(), NATIVE)
    assert not caught.value.problems


def test_no_people_or_no_poolers_is_an_error(tmp_path, people, hash_backbone):
    for profiles, poolers in (([], NATIVE), (people, [])):
        with pytest.raises(ConfigurationError, match="at least one person and one pooler"):
            FeatureStore(tmp_path / "s.sqlite").extract(profiles, hash_backbone, poolers)


def test_keys_do_not_change_between_versions(tmp_path, hash_backbone):
    """The expected keys are those of the first version with this key format."""
    people = [Profile("p", (b"\x89PNG fixed",), "I cook", {"age": 31})]
    poolers = [NativePooler(), MeanPooler(layer=2)]
    store = FeatureStore(tmp_path / "s.sqlite")
    half = FeatureStore(store.store, dtype="float16")
    assert [
        store.plan(people, hash_backbone, poolers).keys[0][0],
        half.plan(
            people, hash_backbone, poolers, prompt="x {text}", prompt_attributes=["age"]
        ).keys[0][0],
    ] == [
        "c9f06697675f173b6cd21d8f1b00623092c874d9167bf8b50d9a0bb6a8698f76",
        "df3a01ee43d586465f63fec423d0662be127e198fd9d6bad0cddd67a5f57780f",
    ]


def test_a_plan_counts_distinct_inputs_without_running_them(tmp_path, people, hash_backbone):
    store = FeatureStore(tmp_path / "s.sqlite")
    store.extract(people[:4], hash_backbone, NATIVE)
    twins = [*people, Profile("twin", people[7].images, people[7].text)]
    plan = store.plan(twins, hash_backbone, NATIVE)
    assert hash_backbone.seen == 4
    assert (plan.people, plan.inputs, plan.stored) == (12, 11, 4)
    assert [profile.id for profile in plan.missing] == [f"p{i}" for i in range(4, 11)]
    assert plan.keys[11] == plan.keys[7]
    assert len(set(plan.keys)) == 11
    assert str(plan) == (
        "12 people, 11 distinct inputs: 4 in the store, 7 to run through HashBackbone."
    )
    assert plan.seconds is None


def test_running_a_plan_matches_extract(tmp_path, people):
    poolers = [NativePooler(), MeanPooler()]
    plan = FeatureStore(tmp_path / "a.sqlite").plan(people, Tokens(), poolers)
    expected = FeatureStore(tmp_path / "b.sqlite").extract(people, Tokens(), poolers)
    assert [len(keys) for keys in plan.keys] == [2] * 11
    for features, reference in zip(plan.run(), expected, strict=True):
        assert np.array_equal(features, reference)


def test_running_a_plan_rereads_the_store(tmp_path, people, hash_backbone):
    plan = FeatureStore(tmp_path / "s.sqlite").plan(people, hash_backbone, NATIVE)
    FeatureStore(tmp_path / "s.sqlite").extract(people, HashBackbone(), NATIVE)
    (h,) = plan.run()
    assert hash_backbone.seen == 0
    assert h.shape == (11, 8)


def test_measuring_extracts_and_stores_a_sample(tmp_path, people, monkeypatch):
    class Slow(HashBackbone):
        def forward(self, batch):
            clock[0] += 10.0 * len(batch)
            return super().forward(batch)

    clock = [0.0]
    monkeypatch.setattr("pairmatch.features.plan.time.perf_counter", lambda: clock[0])
    backbone = Slow()
    store = FeatureStore(tmp_path / "s.sqlite")
    plan = store.plan(people, backbone, NATIVE)
    measured = plan.measure(sample=4)
    assert backbone.seen == 5
    assert measured.seconds == pytest.approx(60.0)  # 6 remaining people at 10 s each
    assert [profile.id for profile in measured.missing] == [f"p{i}" for i in range(5, 11)]
    assert str(measured) == (
        "11 people, 11 distinct inputs: 5 in the store, 6 to run through Slow (about 60 s)."
    )
    measured.run()
    assert backbone.seen == 11
    rest = store.plan(people[:3], backbone, NATIVE).measure()
    assert rest.seconds == 0.0
    assert backbone.seen == 11
    with pytest.raises(ConfigurationError, match="must be at least 1, got 0"):
        plan.measure(sample=0)


def test_durations_have_a_suitable_unit():
    assert [format_duration(seconds) for seconds in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_requests_with_equal_inputs_share_a_pass(tmp_path, people):
    store = FeatureStore(tmp_path / "s.sqlite")
    backbone = Tokens()
    native = NativePooler()
    mean = MeanPooler()

    def request(poolers=(native,), of=backbone, to=store, profiles=people, **options):
        return ExtractionRequest(to, profiles, of, poolers, **options)

    plans = plan_extractions(
        [
            request(),
            request([mean], Tokens()),  # another instance with the same fingerprint
            request([NativePooler()], prompt="Profile: {text}"),  # renders the same text
            request(prompt="{text}"),
            request(of=Tokens(version=2)),
            request(to=FeatureStore(store.store, dtype="float16")),
            request(profiles=people[:3]),
        ]
    )
    assert [len(plan.keys[0]) for plan in plans] == [2, 1, 1, 1, 1]
    assert request(prompt="{text}").plan().keys == plans[1].keys
    shared_native, shared_mean = plans[0].run()
    assert backbone.seen == 11
    assert np.array_equal(shared_native, store.extract(people, backbone, [native])[0])
    assert np.array_equal(shared_mean, store.extract(people, backbone, [mean])[0])
    assert backbone.seen == 11


def test_backbones_without_text_share_a_pass_across_prompts(tmp_path, people):
    backbone = HashBackbone()
    backbone.reads_text = False
    store = FeatureStore(tmp_path / "s.sqlite")
    requests = [
        ExtractionRequest(store, people, backbone, NATIVE, prompt=prompt)
        for prompt in (None, "{text}", "About: {text}")
    ]
    assert len(plan_extractions(requests)) == 1


def test_backbones_with_other_layers_do_not_share_a_pass(tmp_path, people):
    shallow = HashBackbone()
    shallow.layers = (1,)
    deep = HashBackbone()
    deep.layers = (2,)
    store = FeatureStore(tmp_path / "s.sqlite")
    requests = [ExtractionRequest(store, people, b, NATIVE) for b in (shallow, deep, shallow)]
    assert len(plan_extractions(requests)) == 2


def test_non_finite_values_are_errors(tmp_path, people):
    class Overflows(HashBackbone):
        def vector(self, content):
            return super().vector(content) * 1e6

    store = FeatureStore(tmp_path / "s.sqlite", dtype="float16")
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(BackboneError, match=r"not finite in float16 for .*: try dtype='float32'"),
    ):
        store.extract(people, Overflows(), NATIVE)
    assert store.store.counts()["features"] == 0


def test_join_scales_weights_and_concatenates():
    a, b = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[10.0], [-5.0]])
    assert np.allclose(join([a, b], [1.0, 0.5]), [[0.6, 0.8, 0.5], [0, 1, -0.5]])
    assert np.array_equal(join([a]), a)  # a single backbone is not scaled
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

    paths = sorted(Path(sys.argv[2]).iterdir())
    people = [Profile(f"p{i:02d}", (path,)) for i, path in enumerate(paths)]
    backbone = Mortal()
    h = FeatureStore(sys.argv[3]).extract(people, backbone, [NativePooler()])[0]
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


def test_a_killed_run_resumes(tmp_path, fifty):
    store = tmp_path / "s.sqlite"
    killed = run(fifty, store, "die")
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM features").fetchone() == (20,)
    connection.close()
    out, _ = run(fifty, store, "live").communicate(timeout=120)
    assert out.split()[0] == "30"  # only the missing people
    fresh, _ = run(fifty, tmp_path / "fresh.sqlite", "live").communicate(timeout=120)
    assert out.split()[1] == fresh.split()[1]


def test_two_processes_extract_concurrently(tmp_path, fifty):
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


def test_prepare_runs_ahead_in_worker_threads(tmp_path, people):
    import threading

    class Watched(HashBackbone):
        threads: ClassVar = set()

        def prepare(self, items):
            self.threads.add(threading.current_thread().name.split("_")[0])
            return super().prepare(items)

    FeatureStore(tmp_path / "s.sqlite").extract(people, Watched(), NATIVE)
    assert "pairmatch-prepare" in Watched.threads
    assert Watched().prepare([Item((people[0].images[0],), "x")])


def test_measuring_links_every_person_with_a_sampled_photo(tmp_path, photo):
    shared_photo = photo("same.png", seed=1)
    people = [Profile(name, (shared_photo,)) for name in ("first", "twin")]
    store = FeatureStore(tmp_path / "s.sqlite")
    store.plan(people, HashBackbone(), NATIVE).measure()
    assert store.store.counts() == {"features": 1, "metadata": 0, "people": 2}
    assert store.store.forget(["twin"]).features == 1
