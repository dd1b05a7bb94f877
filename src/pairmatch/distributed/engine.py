"""The engine that runs backbones on the nodes of a Ray cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pairmatch.core.arrays import Floats, check_count
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.types import Item
from pairmatch.distributed.cluster import cluster_of, connect
from pairmatch.distributed.markets import BalanceWorkers, SearchWorker, SharedGallery
from pairmatch.distributed.parts import PartRecipe, photo_problem, sent_images
from pairmatch.distributed.pool import ActorPool
from pairmatch.distributed.workers import ExtractionWorker
from pairmatch.features.engines import Extracted
from pairmatch.gallery import Gallery
from pairmatch.gallery.blocks import Chunk
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.market.potentials import FitRows, Market

_MOST_DECODERS = 8


class RayEngine:
    """Runs backbones, and rankings of whole markets, on all nodes of a Ray cluster.

    Choose it if one machine is too slow, or for several GPUs of one machine. Each worker holds one
    copy of the model: one per GPU if the cluster has GPUs and the backbone uses them, else one per
    `cpus_per_worker` CPUs. Threads of a worker decode photos while its model runs.

    Nodes need pairmatch with the same versions and weights, which is checked, and nothing else of
    this machine: photos travel as bytes. Vectors come back in batches, and each is written to the
    store when it arrives. A worker, a node or this process may die at any time: it costs the
    batches in flight, and running the same command again does only what is missing.

    Batches are those of one machine, so vectors are equal bit for bit on equal hardware.

    Args:
        address: Address of a cluster; None for the one in `RAY_ADDRESS`, else the one that runs on
            this machine, else a new one of this machine.
        cpus_per_worker: Number of CPUs per worker; None for 1, or with GPUs for the CPUs of a node
            per GPU, at most 8.
        workers: Maximum number of workers; None for as many as the cluster has room for.
        start_seconds: Longest time to wait for a first worker, in seconds.

    Raises:
        MissingExtraError: Ray is not installed (when it is first used).
        ClusterError: The cluster cannot be reached (when it is first used).
        ConfigurationError: A number is below 1.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        cpus_per_worker: int | None = None,
        workers: int | None = None,
        start_seconds: float = 300.0,
    ) -> None:
        for name, number in (("cpus_per_worker", cpus_per_worker), ("workers", workers)):
            if number is not None:
                check_count(f"RayEngine({name}=...)", number)
        if start_seconds <= 0:
            raise ConfigurationError(
                f"`RayEngine(start_seconds=...)` must be above 0, got {start_seconds}."
            )
        self.address = address
        self.cpus_per_worker = cpus_per_worker
        self.workers = workers
        self.start_seconds = start_seconds

    def extract(
        self,
        backbone: Backbone,
        poolers: Sequence[Pooler],
        dtype: str,
        batches: Sequence[Sequence[Item]],
    ) -> Iterator[tuple[int, Extracted]]:
        """Yields the number and the result of every batch once, in the order they are done.

        Raises:
            ClusterError: The cluster has no room for a worker, a batch keeps killing its worker,
                or a node has other versions or weights.
            BackboneError: The backbone cannot run, or returns values that are not finite.
        """
        recipe = PartRecipe.of(backbone)
        pool = self.pool(
            ExtractionWorker,
            (recipe, tuple(poolers), dtype, dict(backbone.fingerprint())),
            uses_accelerator=recipe.uses_accelerator,
        )
        for number, result in pool.map(batches, _sent_items):
            problems = {
                row: photo_problem(batches[number][row].images, problem)
                for row, problem in result.problems.items()
            }
            yield number, dataclasses.replace(result, problems=problems)

    def search_all(
        self,
        candidates: Gallery,
        chunks: Sequence[Chunk],
        request: Callable[[Chunk], SearchRequest],
        bonus: Floats | None,
    ) -> Iterator[tuple[int, SearchResult]]:
        """Yields the number and the result of every chunk of people once; for `recommend_all`.

        Candidates are copied to the memory of the cluster, which the workers of a node share.

        Raises:
            ClusterError: The cluster has no room for a worker, or a chunk keeps killing its worker.
            ConfigurationError: A rule cannot be used.
        """
        if not chunks:
            return
        shared = SharedGallery.of(connect(self.address), candidates, bonus)
        pool = self.pool(SearchWorker, (shared,), uses_accelerator=False)
        yield from pool.map(chunks, request)

    @contextmanager
    def balancing(self, market: Market) -> Iterator[FitRows]:
        """Takes a market to workers, each with its rows of side a; for `balance`.

        Side b is in the memory of the cluster, which the workers of a node share.

        Raises:
            ClusterError: The cluster has no room for the workers, or one dies again and again.
        """
        ray = connect(self.address)
        cpus = self.cpus_per_worker or 1
        room = max(1, cluster_of(ray).cpus // cpus)
        count = room if self.workers is None else min(room, self.workers)
        workers = BalanceWorkers(
            ray, market, min(count, len(market.left)), cpus, self.start_seconds
        )
        try:
            yield workers.fit
        finally:
            workers.stop()

    def pool(
        self, worker: type, arguments: tuple[Any, ...], *, uses_accelerator: bool
    ) -> ActorPool:
        """A pool of actors of a class.

        Args:
            worker: The class, with the methods `start` and `run`.
            arguments: Arguments of its constructor, before the number of its CPUs.
            uses_accelerator: Whether an actor takes a GPU if the cluster has any.
        """
        ray = connect(self.address)
        cluster = cluster_of(ray)
        takes_gpu = uses_accelerator and cluster.gpus > 0
        cpus = self.cpus_per_worker
        if cpus is None:
            per_gpu = cluster.cpus_of_gpu_nodes // cluster.gpus if takes_gpu else 1
            cpus = max(1, min(_MOST_DECODERS, per_gpu))
        decoders = cpus if takes_gpu else 2
        actor = ray.remote(worker).options(
            num_cpus=cpus,
            num_gpus=1 if takes_gpu else 0,
            max_concurrency=decoders,
            max_restarts=0,
        )

        def wanted() -> int:
            now = cluster_of(ray)
            room = min(now.gpus, now.cpus // cpus) if takes_gpu else now.cpus // cpus
            return room if self.workers is None else min(room, self.workers)

        return ActorPool(
            ray,
            lambda: actor.remote(*arguments, cpus),
            wanted,
            depth=decoders + 1,
            start_seconds=self.start_seconds,
        )


def _sent_items(items: Sequence[Item]) -> list[Item]:
    return [dataclasses.replace(item, images=sent_images(item.images)) for item in items]
