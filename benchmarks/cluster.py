"""Benchmarks of the engine `ray`: extraction and rankings of whole markets on 1 and 2 workers.

    python benchmarks/cluster.py extraction --photos 1000 --repeats 3
    python benchmarks/cluster.py market 20000 40000 80000 --width 64

Each comparison runs side by side, in turn, on a cluster of this machine; the median counts. Every
process computes with one thread, so that a worker and this process do the same work. Run it on an
idle machine with at least as many CPUs as workers. Everything is timed once workers run: extraction
and slates from the first batch that arrives, and the passes of a balance after the first; the
seconds of all slates include the start of the workers. Needs the extra `ray` and psutil.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# This process is not niced either
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import ray
import torch

from pairmatch import Profile
from pairmatch.backbones.clip import CLIPBackbone
from pairmatch.core.arrays import unit_rows
from pairmatch.distributed import RayEngine
from pairmatch.experiments.demo import draw_people
from pairmatch.features.extractor import FeatureStore
from pairmatch.features.poolers import NativePooler
from pairmatch.gallery import Gallery, recommend_all
from pairmatch.market.engines import ThisProcess
from pairmatch.market.potentials import Market

WORKERS = (None, 1, 2)  # None: without Ray


class Timed:
    """An engine that notes when batches arrive."""

    def __init__(self, engine):
        self.engine = engine
        self.arrived = []

    def extract(self, backbone, poolers, dtype, batches):
        for number, result in self.engine.extract(backbone, poolers, dtype, batches):
            self.arrived.append((time.perf_counter(), len(batches[number])))
            yield number, result


class TimedSearch:
    """An engine that notes when the slates of some people arrive, by direction."""

    def __init__(self, engine):
        self.engine = engine
        self.directions = []

    def search_all(self, candidates, chunks, request, bonus):
        self.directions.append([])
        for number, result in self.engine.search_all(candidates, chunks, request, bonus):
            self.directions[-1].append((time.perf_counter(), len(chunks[number][0])))
            yield number, result

    def rate(self):
        """People per second after the first answer of each direction."""
        spans = [arrived[-1][0] - arrived[0][0] for arrived in self.directions]
        people = sum(count for arrived in self.directions for _, count in arrived[1:])
        return people / sum(spans)


class TimedBackbone(CLIPBackbone):
    """CLIP ViT-B/32 with random weights, which notes when batches are done."""

    def forward(self, batch):
        states = super().forward(batch)
        self.arrived.append((time.perf_counter(), len(batch[1])))
        return states


def rate(arrived):
    """People per second after the first batch."""
    (start, _), *rest = arrived
    return sum(count for _, count in rest) / (rest[-1][0] - start)


def extraction(photos, repeats):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_people(folder, pairs=-(-photos // 2), size_px=224)
        files = sorted((folder / "images").iterdir())[:photos]
        people = [Profile(file.stem, (file,)) for file in files]
        rates = {workers: [] for workers in WORKERS}
        starts = {workers: [] for workers in WORKERS}
        for turn in range(repeats):
            for workers in WORKERS:
                store = FeatureStore(folder / f"{turn}-{workers}.sqlite")
                backbone = CLIPBackbone(random_weights=True, device="cpu", dtype="float32")
                if workers is None:
                    backbone = TimedBackbone(random_weights=True, device="cpu", dtype="float32")
                    backbone.arrived = []
                    arrived = backbone.arrived
                else:
                    store.engine = Timed(RayEngine(workers=workers))
                    arrived = store.engine.arrived
                begun = time.perf_counter()
                store.extract(people, backbone, [NativePooler()])
                starts[workers].append(arrived[0][0] - begun)
                rates[workers].append(rate(arrived))
    print(f"{photos} photos, CLIP ViT-B/32 with random weights, float32, {repeats} repeats")
    print("| workers | photos/s | all repeats | first batch after |")
    print("| --- | --- | --- | --- |")
    for workers in WORKERS:
        each = ", ".join(f"{one:.1f}" for one in rates[workers])
        name = "no Ray" if workers is None else workers
        print(
            f"| {name} | {median(rates[workers]):.1f} | {each} | {median(starts[workers]):.1f} s |"
        )
    alone, one, two = (median(rates[workers]) for workers in WORKERS)
    print(f"two workers / one: {two / one:.2f}; one worker / no Ray: {one / alone:.2f}")


class Memory(threading.Thread):
    """Largest memory of one worker process, without what it shares, in GiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0.0
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.2):
            for process in psutil.process_iter(["name", "cmdline"]):
                words = " ".join([process.info["name"] or "", *(process.info["cmdline"] or [])])
                if "ray::SearchWorker" in words or "ray::BalanceWorker" in words:
                    try:
                        memory = process.memory_info()
                    except psutil.NoSuchProcess:
                        continue
                    self.peak = max(self.peak, (memory.rss - memory.shared) / 2**30)


def timed(call, *arguments, **options):
    """Result, seconds, and the largest memory of a worker in GiB."""
    memory = Memory()
    memory.start()
    begun = time.perf_counter()
    result = call(*arguments, **options)
    seconds = time.perf_counter() - begun
    memory.done.set()
    return result, seconds, memory.peak


def passes(a, b, engine, count=3):
    """Seconds of a pass of the balance, after one that is not timed, and memory of a worker."""
    whole = Market.of(a, b, 0.1, 1.0, None, None)
    log_a, log_b = np.zeros(len(a)), np.zeros(len(b))
    with (engine or ThisProcess()).balancing(whole) as fit:
        fit(log_a, log_b)
        _, seconds, memory = timed(lambda: [fit(log_a, log_b) for _ in range(count)])
    return seconds / count, memory


def market(sizes, width, k):
    torch.set_num_threads(1)
    print(
        f"| people per side × {width} | workers | balance, s per pass | GiB per worker | "
        f"slates of {k}, people/s | s in all | GiB per worker |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in sizes:
        rng = np.random.default_rng(0)
        a, b = (unit_rows(rng.normal(size=(size, width)).astype(np.float32)) for _ in "ab")
        sides = [
            Gallery.of([f"{side}{n}" for n in range(size)], vectors, side=side)
            for side, vectors in (("a", a), ("b", b))
        ]
        for workers in WORKERS:
            engine = None if workers is None else RayEngine(workers=workers)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "slates"
                seconds, memory = passes(a, b, engine)
                searching = None if engine is None else TimedSearch(engine)
                _, search, found = timed(recommend_all, *sides, folder, k, engine=searching)
                rate = 2 * size / search if searching is None else searching.rate()
            name = "no Ray" if workers is None else workers
            print(
                f"| {size:,} | {name} | {seconds:.2f} | {memory:.2f} | {rate:,.0f} | "
                f"{search:.1f} | {found:.2f} |",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("extraction")
    command.add_argument("--photos", type=int, default=1000)
    command.add_argument("--repeats", type=int, default=3)
    command = commands.add_parser("market")
    command.add_argument("sizes", type=int, nargs="+")
    command.add_argument("--width", type=int, default=64)
    command.add_argument("-k", type=int, default=20)
    options = vars(parser.parse_args())
    ray.init(  # its own cluster, not one that another program started
        address="local",
        num_cpus=max(count or 0 for count in WORKERS),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    {"extraction": extraction, "market": market}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
