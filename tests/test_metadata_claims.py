"""Runs that share a store: no photo is paid for twice, whoever runs, ends or is killed."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from openai_server import BatchServer, Server, good
from PIL import Image

from pairmatch import Profile
from pairmatch.io.claims import lock_path
from pairmatch.io.store import Store
from pairmatch.metadata import annotate
from pairmatch.metadata.batch import annotate_in_batches
from pairmatch.metadata.openai import OpenAIMetadata


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-very-secret")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store" / "store.sqlite"


@pytest.fixture
def people(tmp_path):
    profiles = []
    for index in range(6):
        photo = tmp_path / f"{index}.png"
        noise = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(photo)
        profiles.append(Profile(f"id-{index}", (photo,)))
    return profiles


def generator(server, **options):
    return OpenAIMetadata(
        **{"model": "test", "base_url": server.url, "concurrency": 2, "max_retries": 0, **options}
    )


class Gate:
    """Answers with metadata, the first request only after `open` was called."""

    def __init__(self):
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, number, body):
        if number == 0:
            self.reached.set()
            assert self._open.wait(30)
        return good(number, body)

    def open(self):
        self._open.set()


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    return thread, results


def leftovers(path):
    with Store(path) as store:
        claims = store._database.select("SELECT count(*) FROM claims")[0][0]
    return claims, list(path.parent.glob("*-claims-*"))


@pytest.mark.parametrize("shares_object", [True, False])
def test_two_runs_at_once_pay_once(shares_object, people, path):
    gate = Gate()
    with Server(gate) as server, Store(path) as first, Store(path) as second:
        stores = [first, first if shares_object else second]

        def run(store, some):
            return annotate(some, generator(server), store, allow_upload=True)

        slow, slow_results = in_thread(lambda: run(stores[0], people[:4]))
        assert gate.reached.wait(30)
        # The second run has two photos of its own, and waits for those of the first
        quick, quick_results = in_thread(lambda: run(stores[1], people))
        while second.counts()["metadata"] < 5:
            assert slow.is_alive()
        gate.open()
        slow.join(30)
        quick.join(30)
        assert len(server.requests) == 6
        assert not slow_results[0].refused
        assert not quick_results[0].refused
        assert slow_results[0].asked + quick_results[0].asked == 6
        assert sum(spent.calls for spent in first.spent()) == 6
    assert leftovers(path) == (0, [])


def test_photos_of_a_run_that_stops_are_taken_over(people, path):
    gate = Gate()
    with Server(gate) as server, Store(path) as first, Store(path) as second:
        priced = generator(server, input_usd=1000.0, output_usd=0.0, concurrency=1)
        stopped, stopped_results = in_thread(
            lambda: annotate(people, priced, first, allow_upload=True, max_usd=2.5)
        )
        assert gate.reached.wait(30)
        other, other_results = in_thread(
            lambda: annotate(people, generator(server), second, allow_upload=True)
        )
        gate.open()
        stopped.join(30)
        other.join(30)
        assert {refusal.kind for refusal in stopped_results[0].refused.values()} <= {"stopped"}
        assert not other_results[0].refused
        assert len(server.requests) == 6


KILLED = """
import sys
from pairmatch import Profile
from pairmatch.metadata import annotate
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.io.store import Store
from pathlib import Path
people = [Profile(f"id-{p.stem}", (p,)) for p in sorted(Path(sys.argv[1]).glob("*.png"))]
maker = OpenAIMetadata(model="test", base_url=sys.argv[3], concurrency=2)
annotate(people, maker, Store(sys.argv[2]), allow_upload=True)
"""


def test_claims_end_with_a_killed_process(people, path, tmp_path):
    running = []

    def behave(number, body):
        if number == 2:
            os.kill(running[0].pid, signal.SIGKILL)
        return good(number, body)

    with Server(behave) as server:
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(path), server.url]
        running.append(subprocess.Popen(command))
        assert running[0].wait(60) == -signal.SIGKILL
        claims, locks = leftovers(path)
        assert claims >= 1
        assert len(locks) == 1
        with Store(path) as store:
            assert not annotate(people, generator(server), store, allow_upload=True).refused
    assert leftovers(path) == (0, [])


def test_ctrl_c_ends_a_run_within_seconds(people, path, tmp_path):
    reached = threading.Event()
    end = threading.Event()

    def behave(number, body):
        reached.set()
        end.wait(60)  # no answer, although the generator would wait for 60 seconds

    with Server(behave) as server:
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(path), server.url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            assert reached.wait(60)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            end.set()
        assert b"KeyboardInterrupt" in errors
        assert process.returncode != 0
    assert leftovers(path) == (0, [])


def test_batches_leave_out_what_another_run_submits(people, path):
    with BatchServer(good) as server, Store(path) as first, Store(path) as second:
        gate = Gate()
        server.behave = gate
        thread, results = in_thread(
            lambda: annotate(people[:2], generator(server), first, allow_upload=True)
        )
        assert gate.reached.wait(30)
        batch = annotate_in_batches(people, generator(server), second, allow_upload=True)
        assert batch.annotation.asked == 4
        assert {refusal.kind for refusal in batch.annotation.refused.values()} == {"pending"}
        gate.open()
        thread.join(30)
        assert not results[0].refused
        server.finish()
        assert not annotate_in_batches(people, generator(server), second).annotation.refused


def test_people_erased_during_a_run_remain_erased(people, path):
    gate = Gate()
    with Server(gate) as server, Store(path) as store, Store(path) as other:
        thread, results = in_thread(
            lambda: annotate(people, generator(server), store, allow_upload=True)
        )
        assert gate.reached.wait(30)
        other.forget([person.id for person in people])
        gate.open()
        thread.join(30)
        assert results[0].asked == 6
        assert other.counts()["metadata"] <= 1  # the photo that was answered before the erasure
        assert other.spent()[0].calls == 6


def test_claims_of_one_run_hold_against_others(path):
    with Store(path) as store, store.claims() as mine:
        assert mine.take(["a", "b"]) == {"a", "b"}
        with Store(path) as another, another.claims() as theirs:
            assert theirs.take(["a", "c"]) == {"c"}
            mine.release(["a"])
            assert theirs.take(["a"]) == {"a"}
            mine.release(["c"])  # not its own
            assert mine.take(["c"]) == set()
        assert mine.take(["a", "c"]) == {"a", "c"}
        assert lock_path(store.path, mine.owner).exists()
        assert not lock_path(store.path, theirs.owner).exists()


def test_stores_without_the_table_are_used(people, path):
    with Store(path) as store:
        with store._database.transaction() as connection:
            connection.execute("DROP TABLE claims")
        store.forget(["id-0"])
        with store._database.transaction() as connection:
            connection.execute("DROP TABLE claims")
        with Server(good) as server:
            assert not annotate(people, generator(server), store, allow_upload=True).refused
