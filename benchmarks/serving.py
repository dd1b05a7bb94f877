"""Measures the HTTP service on loopback: latency, throughput, stale answers and memory.

    python benchmarks/serving.py [--people 100000 1000000] [--clients 1 8 32] [--requests 300]
        [--pages 20] [--onnx encoder.onnx] [--memory 100000]

One process serves; this one holds the clients, so both share the machine. While clients search,
one person after another is added, looked for, removed and looked for again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from pairmatch import Gallery, Matcher, Pairs
from pairmatch.core.arrays import unit_rows
from pairmatch.experiments.demo import draw_people
from pairmatch.matcher.recommending import head_digest

WIDTH = 128
START_SECONDS = 300


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def send(self, method: str, path: str, body: bytes, kind: str = "application/json"):
        """The answer as JSON; anything but success is an error."""
        self.connection.request(method, path, body, {"Content-Type": kind})
        response = self.connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:300]!r}")
        return json.loads(content)

    def recommend(self, **request):
        return self.send("POST", "/recommend", json.dumps(request).encode())


def form(request: dict, photo: bytes) -> tuple[bytes, str]:
    """A multipart body with a photo, and its type."""
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n',
        json.dumps(request).encode(),
        b'\r\n--x\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n',
        photo,
        b"\r\n--x--\r\n",
    ]
    return b"".join(parts), "multipart/form-data; boundary=x"


def fit(folder: Path, onnx: Path | None) -> Matcher:
    """A small matcher of width 128; only its speed matters."""
    draw_people(folder / "people", pairs=60, size_px=640)
    pairs = Pairs.read(folder / "people" / "pairs.csv")
    backbone = ("onnx", {"path": str(onnx)}) if onnx else "descriptor"
    matcher = Matcher(
        backbone=backbone,
        metadata="none",
        head=("mlp", {"width": WIDTH}),
        training={"epochs": 3},
        store=folder / "s.sqlite",
    )
    train, validation, _ = pairs.split(0.6, 0.3, seed=0)
    lines = [f"a{number},b{number}" for number in range(500)]
    (folder / "test.csv").write_text("\n".join(["id_a,id_b", *lines]))
    matcher.fit(train, validation).save(folder / "matcher")
    return matcher


def build(folder: Path, side: str, people: int, made_by: str | None) -> None:
    """A gallery of random unit vectors."""
    rng = np.random.default_rng(ord(side))
    vectors = np.empty((people, WIDTH), np.float32)
    for start in range(0, people, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = unit_rows(rng.standard_normal(part.shape, np.float32))
    ids = [f"{side}{number}" for number in range(people)]
    Gallery.of(ids, vectors, side=side, made_by=made_by).save(folder / f"g{side}")


@contextmanager
def served(folder: Path):
    """Port and process of a service."""
    command = [sys.executable, "-m", "pairmatch", "serve", str(folder / "matcher"), "--port", "0"]
    command += ["--gallery", f"a={folder / 'ga'}", "--gallery", f"b={folder / 'gb'}"]
    command += ["--store", str(folder / "s.sqlite"), "--pairs", str(folder / "test.csv")]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file)
    try:
        deadline = time.monotonic() + START_SECONDS
        while " Ready" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        port = int(re.search(r"127\.0\.0\.1:(\d+)", log.read_text())[1])
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def percentiles(seconds: list[float]) -> str:
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def search(port: int, clients: int, requests: int, people: int) -> None:
    """Prints latency and throughput of searches while people come and go."""
    stopped = threading.Event()
    photo = next(Path(port_folder[port], "people", "images").glob("b*")).read_bytes()
    changes = [0]

    def change() -> None:
        client = Client(port)
        while not stopped.is_set():
            number = changes[0]
            guest = f"/people/guest{number}"
            put = {"side": "b", "attributes": {"guest": number + 1}}
            ask = {"id": "a1", "where": [f"guest = {number + 1}"]}
            client.send("PUT", guest, *form(put, photo))
            if client.recommend(**ask)["candidates"] != 1:
                raise RuntimeError("stale: a person who was added is not found")
            client.send("DELETE", f"{guest}?erase=false", b"")
            if client.recommend(**ask)["candidates"] != 0:
                raise RuntimeError("stale: a person who was removed is found")
            changes[0] += 1

    def work(number: int) -> list[float]:
        client = Client(port)
        rng = np.random.default_rng(number)
        times = []
        for person in rng.integers(people, size=max(1, requests // clients)):
            start = time.perf_counter()
            found = client.recommend(id=f"a{person}", k=20)
            times.append(time.perf_counter() - start)
            if len(found["recommendations"]) != 20:
                raise RuntimeError("an incomplete answer")
        return times

    with ThreadPoolExecutor(clients + 1) as pool:
        changing = pool.submit(change)
        start = time.perf_counter()
        times = [one for part in pool.map(work, range(clients)) for one in part]
        seconds = time.perf_counter() - start
        stopped.set()
        changing.result()
    print(
        f"{people:,} people, {clients} clients: {percentiles(times)}, "
        f"{len(times) / seconds:.0f} requests/s, {changes[0]} people added and removed meanwhile, "
        f"no error, none stale (load {os.getloadavg()[0]:.1f})",
        flush=True,
    )


def embed(port: int, name: str, requests: int) -> None:
    """Prints the latency of embedding a photo, alone and from 8 clients at once."""
    photos = sorted(Path(port_folder[port], "people", "images").iterdir())[:40]
    contents = [photo.read_bytes() for photo in photos]
    for clients in (1, 8):

        def work(number: int, clients: int = clients) -> list[float]:
            client = Client(port)
            times = []
            for turn in range(requests // clients):
                body = form({"side": "a"}, contents[(number + turn) % len(contents)])
                start = time.perf_counter()
                client.send("POST", "/embed", *body)
                times.append(time.perf_counter() - start)
            return times

        with ThreadPoolExecutor(clients) as pool:
            start = time.perf_counter()
            times = [one for part in pool.map(work, range(clients)) for one in part]
            seconds = time.perf_counter() - start
        print(
            f"embedding with {name}, 640 px, {clients} clients: {percentiles(times)}, "
            f"{len(times) / seconds:.0f} photos/s (load {os.getloadavg()[0]:.1f})",
            flush=True,
        )


PAGES = {
    "slate": "/explore?id=a1&side=a",
    "slate with a mutual rule": "/explore?id=a1&side=a&where=guest+is+null&mutual=1",
    "ids that begin with a12": "/explore?id=a12&side=a",
    "exposure": "/explore/exposure?side=a&k=10",
    "test pairs": "/explore/pairs",
}


def explore(port: int, requests: int) -> None:
    """Prints how long pages of the explorer take: first until complete, and then again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def get(path: str) -> bool:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status}")
        return "Refresh" not in response.headers

    for name, path in PAGES.items():
        start = time.perf_counter()
        while not get(path):
            time.sleep(0.1)
        first = time.perf_counter() - start
        times = []
        for _ in range(requests):
            start = time.perf_counter()
            get(path)
            times.append(time.perf_counter() - start)
        load = os.getloadavg()[0]
        print(f"{name}: first {first:.1f} s, again {percentiles(times)} (load {load:.1f})")


def watch_memory(port: int, process: psutil.Process, requests: int) -> None:
    """Prints the resident memory of the service over many requests."""
    client = Client(port)
    for part in range(5):
        for number in range(requests // 5):
            client.recommend(id=f"a{number % 1000}", k=20)
        resident = process.memory_info().rss / 2**20
        print(f"memory after {(part + 1) * (requests // 5):,} requests: {resident:.1f} MiB")


port_folder: dict[int, Path] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=300, help="requests per measurement")
    parser.add_argument("--onnx", type=Path, help="encoder to embed photos with as well")
    parser.add_argument("--pages", type=int, default=20, help="requests per page of the explorer")
    parser.add_argument("--memory", type=int, default=0, help="requests to watch memory over")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matcher = fit(folder, None)
        for people in arguments.people:
            for side in "ab":
                build(folder, side, people, head_digest(matcher.head))
            with served(folder) as (port, process):
                port_folder[port] = folder
                for clients in arguments.clients:
                    search(port, clients, arguments.requests, people)
                explore(port, arguments.pages)
                if people == arguments.people[0]:
                    embed(port, "descriptor", arguments.requests)
                    watch_memory(port, process, arguments.memory)
        if arguments.onnx:
            inner = folder / "onnx"
            inner.mkdir()
            matcher = fit(inner, arguments.onnx.resolve())
            for side in "ab":
                build(inner, side, 1000, head_digest(matcher.head))
            with served(inner) as (port, _):
                port_folder[port] = inner
                embed(port, "ONNX", arguments.requests)


if __name__ == "__main__":
    main()
