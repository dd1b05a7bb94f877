"""Compares exact search with faiss, in turns in one run, and measures the cost of filters.

    python benchmarks/gallery.py [--people 1000000] [--width 512] [--queries 1000] [--rounds 3]

Requires `pip install faiss-cpu`.
"""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np
import psutil
import torch

from pairmatch.core.arrays import unit_rows
from pairmatch.gallery.search import top_k


def timed(function):
    """Seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


class MemoryPeak:
    """Largest growth of resident memory, sampled every 10 ms."""

    def __enter__(self):
        self.process = psutil.Process()
        self.stopped = threading.Event()
        self.before = self.process.memory_info().rss
        self.peak = 0
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while not self.stopped.wait(0.01):
            self.peak = max(self.peak, self.process.memory_info().rss - self.before)

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def draw(arguments):
    """Random unit vectors of people and of queries."""
    rng = np.random.default_rng(0)
    vectors = np.empty((arguments.people, arguments.width), np.float32)
    for start in range(0, arguments.people, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = unit_rows(rng.standard_normal(part.shape, np.float32))
    queries = rng.standard_normal((arguments.queries, arguments.width), np.float32)
    return vectors, unit_rows(queries)


def compare_with_faiss(vectors, queries, k, rounds):
    """Prints the times of both searches and the agreement of their results."""

    def search():
        return top_k(queries, vectors, k, longest=1.0001)

    with MemoryPeak() as memory:
        runs = [timed(search)]
    print(f"memory beyond the vectors: {memory.peak / 2**30:.2f} GiB")

    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss_runs = []
    for _ in range(rounds):
        faiss_runs.append(timed(lambda: index.search(queries, k)))
        runs.append(timed(search))
    seconds, (rows, scores) = min(runs, key=lambda run: run[0])
    faiss_seconds, (faiss_scores, faiss_rows) = min(faiss_runs, key=lambda run: run[0])
    agreement = np.mean(
        [len(np.intersect1d(a, b)) / k for a, b in zip(rows, faiss_rows, strict=True)]
    )
    print(
        f"top_k {seconds:.2f} s, faiss IndexFlatIP {faiss_seconds:.2f} s, "
        f"ratio {seconds / faiss_seconds:.2f}, same candidates {agreement:.6f}"
    )
    print(f"largest difference of scores: {np.abs(scores - faiss_scores).max():.1e}")


def measure_filter(vectors, queries, k, share):
    """Prints the time and the recall of a search of a share of the people."""
    rng = np.random.default_rng(1)
    rows = np.sort(rng.choice(len(vectors), int(len(vectors) * share), replace=False))
    runs = [timed(lambda: top_k(queries, vectors, k, rows=rows)) for _ in range(2)]
    seconds, (best, _) = min(runs, key=lambda run: run[0])
    recalls = []
    for query in range(0, len(queries), max(1, len(queries) // 50)):
        order = np.argsort(-(vectors[rows] @ queries[query]), kind="stable")[:k]
        recalls.append(len(np.intersect1d(best[query], rows[order])) / len(order))
    print(f"eligible {100 * share:g} %: {seconds:.3f} s, recall {np.mean(recalls):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000, help="number of candidates")
    parser.add_argument("--width", type=int, default=512, help="width of embeddings")
    parser.add_argument("--queries", type=int, default=1000, help="number of queries")
    parser.add_argument("--k", type=int, default=50, help="number of candidates per query")
    parser.add_argument("--rounds", type=int, default=3, help="number of repetitions")
    arguments = parser.parse_args()
    vectors, queries = draw(arguments)
    print(
        f"{arguments.queries} queries, top {arguments.k} of {arguments.people:,} × "
        f"{arguments.width}, {torch.get_num_threads()} threads"
    )
    compare_with_faiss(vectors, queries, arguments.k, arguments.rounds)
    for share in (0.001, 0.01, 0.1, 1.0):
        measure_filter(vectors, queries, arguments.k, share)


if __name__ == "__main__":
    main()
