"""Extraction and annotation on Ray: separate node processes, killed actors, nodes and drivers."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from pairmatch import Profile
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.cli import app
from pairmatch.core.errors import BackboneError, ClusterError, ConfigurationError, DataError
from pairmatch.distributed import RayEngine, RayMetadata, describe_cluster
from pairmatch.distributed.markets import BalanceWorker
from pairmatch.distributed.parts import PartRecipe
from pairmatch.distributed.pool import ActorPool
from pairmatch.distributed.workers import ExtractionWorker
from pairmatch.features.extractor import FeatureStore
from pairmatch.features.poolers import NativePooler
from pairmatch.gallery import Gallery, Slates
from pairmatch.io.store import Store
from pairmatch.market import balance
from pairmatch.market.potentials import Market, block_of_scores, fit_rows
from pairmatch.metadata import annotate
from pairmatch.metadata.measured import MeasuredMetadata
from pairmatch.metadata.openai import GPT5NanoMetadata

ray = pytest.importorskip("ray")
pytestmark = [
    # Sockets and files that Ray leaves to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PEOPLE = 40
LIMIT_SECONDS = 240


@pytest.fixture(autouse=True)
def time_limit():
    """Ends a test that hangs."""

    def stop(*_):
        raise TimeoutError(f"the test took more than {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cluster():
    """A head without work, and two nodes of one CPU, each with processes of its own."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # By default, workers run with the niceness 15, and other tests starve them
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    size = {"object_store_memory": 80_000_000}
    started = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **size}
    )
    started.workers = [started.add_node(num_cpus=1, **size) for _ in range(2)]
    ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """People with photos in files; two have the same photo."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    profiles = []
    for number in range(PEOPLE):
        path = folder / f"{number}.png"
        size = rng.integers(40, 90, 2)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
        profiles.append(Profile(id=f"p{number}", images=(path,)))
    return [*profiles, Profile(id="twin", images=profiles[0].images)]


@pytest.fixture(scope="module")
def expected(people, tmp_path_factory):
    """The vectors of one machine."""
    return extract(people, tmp_path_factory.mktemp("one") / "store.sqlite")[0]


def backbone():
    part = DescriptorBackbone(size_px=56)
    part.max_batch_length = 4
    return part


def extract(people, path, engine=None):
    with Store(path) as store:
        features = FeatureStore(store, engine=engine)
        vectors = features.extract(people, backbone(), [NativePooler()])[0]
        return vectors, store.counts()


class Interrupted:
    """An engine that counts batches, and acts once after some of them."""

    def __init__(self, engine, after=None, act=None):
        self.engine = engine
        self.after = after
        self.act = act
        self.batches = []

    def extract(self, backbone, poolers, dtype, batches):
        self.sizes = [len(batch) for batch in batches]
        for number, result in self.engine.extract(backbone, poolers, dtype, batches):
            self.batches.append(number)
            yield number, result
            if len(self.batches) == self.after:
                self.act()


def worker_processes(name="ExtractionWorker"):
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if f"ray::{name}" in " ".join([process.name(), *(process.info["cmdline"] or [])])
    ]


def test_two_nodes_give_the_vectors_of_one_machine_bit_for_bit(cluster, people, expected, tmp_path):
    store = tmp_path / "store.sqlite"
    broken = tmp_path / "broken.png"
    broken.write_bytes(people[0].images[0].read_bytes()[:500])
    everyone = [*people[:5], Profile(id="broken", images=(broken,)), *people[5:]]
    engine = Interrupted(RayEngine(address=cluster.address))
    with pytest.raises(DataError, match="1 of 41 people") as error:
        extract(everyone, store, engine)
    assert f"broken: {broken}" in str(error.value)
    assert sorted(engine.batches) == list(range(len(engine.sizes)))
    assert sum(engine.sizes) == PEOPLE + 1
    with Store(store) as opened:
        assert opened.counts() == {"features": PEOPLE, "metadata": 0, "people": PEOPLE + 1}
    stored = Interrupted(RayEngine())
    vectors, _ = extract(people, store, stored)
    assert stored.batches == []  # all of them come from the store
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected)


@pytest.mark.slow  # an actor dies with its node, too
def test_a_killed_actor_costs_only_its_batches(cluster, people, expected, tmp_path):
    def kill():
        victims = worker_processes()
        assert victims
        victims[0].send_signal(signal.SIGKILL)

    engine = Interrupted(RayEngine(), 3, kill)
    vectors, counts = extract(people, tmp_path / "store.sqlite", engine)
    np.testing.assert_array_equal(vectors, expected)
    assert counts["features"] == PEOPLE
    assert sorted(engine.batches) == list(range(len(engine.sizes)))


DRIVER = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
import test_distributed as t
from pathlib import Path
from pairmatch import Profile
people = [Profile(id=f"p{i}", images=(Path(sys.argv[2]) / f"{i}.png",)) for i in range(t.PEOPLE)]
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
t.extract(people, sys.argv[1], t.Interrupted(t.RayEngine(address=sys.argv[4]), 5, kill))
"""


@pytest.mark.slow
def test_a_killed_driver_is_resumed_with_the_rest(cluster, people, expected, tmp_path):
    store = tmp_path / "store.sqlite"
    arguments = [store, people[0].images[0].parent, Path(__file__).parent, cluster.address]
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments], timeout=LIMIT_SECONDS, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    with Store(store) as opened:
        done = opened.counts()["features"]
    assert 0 < done < PEOPLE
    engine = Interrupted(RayEngine())
    vectors, counts = extract(people, store, engine)
    assert sum(engine.sizes) == PEOPLE - done
    assert counts == {"features": PEOPLE, "metadata": 0, "people": PEOPLE + 1}
    np.testing.assert_array_equal(vectors, expected)
    again = Interrupted(RayEngine())
    extract(people, store, again)
    assert again.batches == []


def test_generators_that_send_photos_need_no_cluster():
    with pytest.raises(ConfigurationError, match="sends photos to a server"):
        RayMetadata(GPT5NanoMetadata(), RayEngine())


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_commands_use_the_cluster(cluster, people, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    folder = people[0].images[0].parent
    pairs, table = tmp_path / "pairs.csv", tmp_path / "people.csv"
    rows = [f"p{i},{i}.png,p{i + 8},{i + 8}.png" for i in range(8)]
    pairs.write_text("\n".join(["id_a,image_a,id_b,image_b", *rows]) + "\n")
    table.write_text("id,image\n" + "".join(f"p{i},{i}.png\n" for i in range(16)))
    store = tmp_path / "ray.sqlite"
    common = ["--images", folder, "--store", store, "--engine", "ray", "--quiet"]
    output = run("annotate", pairs, "--metadata", "measured", *common)
    assert "16 of 16 people have metadata" in output
    with Store(tmp_path / "one.sqlite") as one, Store(store) as other:
        here = annotate(people[:16], MeasuredMetadata(), one)
        there = annotate(people[:16], RayMetadata(MeasuredMetadata(), RayEngine()), other)
        assert there.asked == 0
        assert there.profiles == here.profiles
    vectors = tmp_path / "vectors.npz"
    parts = ["--backbone", "descriptor", "--set", "descriptor.size_px=56"]
    run("embed", table, *parts, "--output", vectors, *common)
    with np.load(vectors) as written:
        np.testing.assert_array_equal(written["embeddings"], expected[:16])
    output = run("doctor", "--store", store)
    assert "Ray cluster of 3 nodes, 2 CPUs, no GPU" in output


def gallery(people, side, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(people, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[-1] = vectors[0]  # equal scores
    profiles = [
        Profile(f"{side}{n}", attributes={"age": n % 40, "region": "ns"[n % 2]})
        for n in range(people)
    ]
    return Gallery.of(profiles, vectors, side=side)


@pytest.mark.slow
def test_slates_of_a_balanced_market_are_those_of_one_machine(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    people = gallery(1500, "a", 0).save(tmp_path / "a")
    common = ["slates", people, "-k", "5", "--where", "abs(age - query.age) <= 9", "--quiet"]
    output = run(*common, "--output", tmp_path / "one")
    assert (
        run(*common, "--output", tmp_path / "ray", "--engine", "ray").splitlines()[:-1]
        == (output.splitlines()[:-1])
    )
    assert Slates(tmp_path / "ray").table("a") == Slates(tmp_path / "one").table("a")
    a, b = gallery(1500, "a", 0).embeddings, gallery(1100, "b", 1).embeddings
    here = balance(a, b, temperature=0.2)
    there = balance(a, b, temperature=0.2, engine=RayEngine())
    assert there.iterations == here.iterations
    for name in ("bonus_a", "bonus_b", "unmatched_a", "unmatched_b"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_killed_worker_of_a_market_is_replaced(cluster):
    people = gallery(300, "a", 0).embeddings
    market = Market.of(people, None, 0.5, 1.0, None, None)
    log_a = np.zeros(300)
    expected = fit_rows(market, block_of_scores(market), log_a, log_a)
    with RayEngine().balancing(market) as fit:
        fit(log_a, log_a)
        victims = worker_processes("BalanceWorker")
        assert len(victims) == 2
        victims[0].send_signal(signal.SIGKILL)
        victims[0].wait(60)
        for ours, theirs in zip(fit(log_a, log_a), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("one_sided", [True, False])
def test_passes_over_parts_of_a_market_are_those_over_all_of_it(one_sided):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(23, 4)) / 2, rng.normal(size=(17, 4)) / 2
    mask = rng.random((23, 23 if one_sided else 17)) < 0.7
    market = Market.of(
        a, None if one_sided else b, 0.5, 1.0, None, lambda start, stop: mask[start:stop]
    )
    log_a, log_b = rng.normal(size=23), rng.normal(size=len(market.right))
    expected = fit_rows(market, block_of_scores(market), log_a, log_b)
    parts = [slice(0, 9), slice(9, 10), slice(10, 23)]
    done = []
    for rows in parts:
        worker = BalanceWorker(1)
        worker.start(market.part(rows), market.right.numpy())
        done.append(worker.fit(log_a[rows], log_b))
    np.testing.assert_allclose(np.concatenate([one[0] for one in done]), expected[0], rtol=1e-6)
    np.testing.assert_allclose(sum(one[1] for one in done), expected[1], rtol=1e-6)
    assert max(one[2] for one in done) == pytest.approx(expected[2], rel=1e-6)


def test_nodes_with_other_versions_are_refused():
    part = backbone()
    there = {**part.fingerprint(), "pillow": "1"}
    worker = ExtractionWorker(PartRecipe.of(part), (NativePooler(),), "float32", there, 1)
    with pytest.raises(ClusterError, match="pillow: '1' here"):
        worker.start()


class Worker:
    """An actor that ends its process for some tasks."""

    def start(self):
        pass

    def run(self, task):
        if task == "die":
            os._exit(1)
        if task == "raise":
            raise BackboneError("this cannot work")
        return task


def pool(**options):
    # Sent by value, because nodes cannot import this file
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    actor = ray.remote(Worker).options(num_cpus=options.pop("cpus", 1))
    return ActorPool(ray, actor.remote, lambda: 2, **options)


@pytest.mark.slow
def test_a_task_that_keeps_killing_its_worker_is_an_error(cluster):
    with pytest.raises(ClusterError, match="died 5 times in a row with the same work"):
        list(pool(depth=1).map(["fine", "die"], str))


def test_errors_of_workers_arrive_as_they_are(cluster):
    with pytest.raises(BackboneError, match="this cannot work"):
        list(pool().map(["fine", "raise"], str))


def test_a_cluster_without_room_is_an_error(cluster):
    with pytest.raises(ClusterError, match="No worker could be started"):
        list(pool(cpus=64, start_seconds=1).map(["fine"], str))


def test_a_cluster_that_is_connected_is_described(cluster):
    described = describe_cluster()
    assert (described.nodes, described.cpus, described.gpus) == (3, 2, 0)


def test_invalid_sizes_are_errors():
    for options in ({"cpus_per_worker": 0}, {"workers": 0}, {"start_seconds": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            RayEngine(**options)


@pytest.mark.slow
def test_a_node_killed_half_way_costs_only_its_batches(cluster, people, expected, tmp_path):
    engine = Interrupted(RayEngine(), 4, lambda: cluster.remove_node(cluster.workers.pop()))
    try:
        vectors, counts = extract(people, tmp_path / "store.sqlite", engine)
    finally:
        cluster.workers.append(cluster.add_node(num_cpus=1, object_store_memory=80_000_000))
    np.testing.assert_array_equal(vectors, expected)
    assert counts == {"features": PEOPLE, "metadata": 0, "people": PEOPLE + 1}
    assert sorted(engine.batches) == list(range(len(engine.sizes)))
