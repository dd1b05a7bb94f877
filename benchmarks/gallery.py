"""Exact search beside faiss, in turns in one run, and what filters cost.

    python benchmarks/gallery.py [--people 1000000] [--width 512] [--queries 1000] [--rounds 3]

Needs `pip install faiss-cpu`.
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
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


class Memory:
    """The most that resident memory grows, looked at every 10 ms."""

    def __enter__(self):
        self.process, self.done = psutil.Process(), threading.Event()
        self.before, self.most = self.process.memory_info().rss, 0
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.01):
            self.most = max(self.most, self.process.memory_info().rss - self.before)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    threads = torch.get_num_threads()
    rng = np.random.default_rng(0)
    vectors = np.empty((given.people, given.width), np.float32)
    for start in range(0, given.people, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = unit_rows(rng.standard_normal(part.shape, np.float32))
    queries = unit_rows(rng.standard_normal((given.queries, given.width), np.float32))
    print(
        f"{given.queries} queries, top {given.k} of {given.people:,} × {given.width}, {threads} threads"
    )

    ours = []
    with Memory() as memory:
        ours.append(timed(lambda: top_k(queries, vectors, given.k, longest=1.0001)))
    print(f"memory beyond the vectors: {memory.most / 2**30:.2f} GiB")

    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(given.width)
    index.add(vectors)
    theirs = []
    for _ in range(given.rounds):
        theirs.append(timed(lambda: index.search(queries, given.k)))
        ours.append(timed(lambda: top_k(queries, vectors, given.k, longest=1.0001)))
    (fast, (rows, scores)), (slow, (their_scores, their_rows)) = (
        min(ours, key=lambda t: t[0]),
        min(theirs, key=lambda t: t[0]),
    )
    same = np.mean(
        [len(np.intersect1d(a, b)) / given.k for a, b in zip(rows, their_rows, strict=True)]
    )
    print(
        f"ours {fast:.2f} s, faiss IndexFlatIP {slow:.2f} s: ratio {fast / slow:.2f}; the same people: {same:.6f}"
    )
    print(f"largest difference of scores: {np.abs(scores - their_scores).max():.1e}")

    for share in (0.001, 0.01, 0.1, 1.0):
        chosen = np.sort(rng.choice(given.people, int(given.people * share), replace=False))
        seconds, (found, _) = min(
            (
                timed(lambda chosen=chosen: top_k(queries, vectors, given.k, rows=chosen))
                for _ in range(2)
            ),
            key=lambda t: t[0],
        )
        sample = range(0, given.queries, max(1, given.queries // 50))
        expected = [
            chosen[np.argsort(-(vectors[chosen] @ queries[q]), kind="stable")[: given.k]]
            for q in sample
        ]
        recall = np.mean(
            [
                len(np.intersect1d(found[q], e)) / len(e)
                for q, e in zip(sample, expected, strict=True)
            ]
        )
        print(f"eligible {100 * share:g} %: {seconds:.3f} s, recall {recall:.4f}")


if __name__ == "__main__":
    main()
