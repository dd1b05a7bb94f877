"""Whole markets on a cluster: searches for all people, and the passes of `balance`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.arrays import Floats, Vectors
from pairmatch.core.errors import ClusterError, PairmatchError
from pairmatch.gallery import Gallery
from pairmatch.gallery.blocks import Block
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.gallery.snapshot import Snapshot
from pairmatch.market.potentials import Doubles, Market, block_of_scores, fit_rows

_ROWS = 65_536  # people per object of the cluster's memory
_MOST_LOSSES = 5  # workers that may die


@dataclasses.dataclass(frozen=True, slots=True)
class SharedGallery:
    """Candidates in the memory of the cluster, which processes of a node share.

    Attributes:
        blocks: References to blocks of people.
        gallery: Kinds of the attributes, and width of the vectors.
        bonus: Reference to the bonus of each candidate, or None.
    """

    blocks: list[Any]
    gallery: tuple[dict[str, Any], int | None]
    bonus: Any

    @classmethod
    def of(cls, ray: Any, gallery: Gallery, bonus: Floats | None) -> SharedGallery:
        """Copies a gallery to the cluster, block by block."""
        blocks = [ray.put(Block.from_people(*chunk)) for chunk in gallery.chunks(_ROWS)]
        shared = None if bonus is None else ray.put(np.asarray(bonus, np.float32))
        return cls(blocks, (dict(gallery.attribute_kinds), gallery.width), shared)


class SearchWorker:
    """Searches the candidates of a gallery for some people at a time.

    Args:
        shared: The candidates.
        threads: Number of CPUs of this process.
    """

    def __init__(self, shared: SharedGallery, threads: int) -> None:
        torch.set_num_threads(threads)
        self._shared = shared

    def start(self) -> None:
        """Takes the candidates from the memory of the node, without a copy."""
        import ray

        kinds, width = self._shared.gallery
        blocks = [dataclasses.replace(block, _columns={}) for block in ray.get(self._shared.blocks)]
        self._people = Snapshot(blocks, kinds, width)
        self._bonus: Vectors | None = (
            None if self._shared.bonus is None else ray.get(self._shared.bonus)
        )

    def run(self, request: SearchRequest) -> SearchResult:
        """Answers a request."""
        return self._people.search(dataclasses.replace(request, bonus=self._bonus))


class BalanceWorker:
    """Runs passes over some rows of a market.

    Args:
        threads: Number of CPUs of this process.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def start(self, market: Market, right: Vectors) -> None:
        """Takes the rows of this worker.

        Args:
            market: The rows, without side b.
            right: [M, K] float32 side b, in the memory of the node.
        """
        self._market = dataclasses.replace(market, right=_shared_tensor(right))
        self._block = block_of_scores(self._market)

    def fit(self, log_a: Doubles, log_b: Doubles) -> tuple[Doubles, Doubles, float]:
        """One pass over the rows of this worker."""
        return fit_rows(self._market, self._block, log_a, log_b)


class BalanceWorkers:
    """Workers that hold the rows of a market, each its own; those that die are replaced.

    Args:
        ray: The connected package.
        market: The whole market.
        count: Number of workers, at most one per row.
        cpus: Number of CPUs per worker.
        start_seconds: Longest time to wait for a worker, in seconds.

    Raises:
        ClusterError: The cluster has no room for the workers.
    """

    def __init__(
        self, ray: Any, market: Market, count: int, cpus: int, start_seconds: float
    ) -> None:
        self._ray = ray
        self._cpus = cpus
        self._start_seconds = start_seconds
        self._losses = 0
        bounds = np.linspace(0, len(market.left), count + 1).astype(int).tolist()
        self._rows = [slice(start, stop) for start, stop in pairwise(bounds)]
        nothing = torch.empty(0, market.left.shape[1])
        # Kept for workers that take the place of others
        self._right = ray.put(market.right.numpy())
        self._parts = [
            ray.put(dataclasses.replace(market.part(rows), right=nothing)) for rows in self._rows
        ]
        self._workers: list[Any] = [None] * count
        try:
            self._start(range(count))
        except BaseException:
            self.stop()
            raise

    def fit(self, log_a: Doubles, log_b: Doubles) -> tuple[Doubles, Doubles, float]:
        """One pass over all pairs; what a worker that dies has lost is done again.

        Raises:
            ClusterError: Workers die again and again, or there is no room for others.
        """
        shared = self._ray.put(log_b)

        def call(number: int) -> Any:
            return self._workers[number].fit.remote(log_a[self._rows[number]], shared)

        calls = {number: call(number) for number in range(len(self._workers))}
        parts: dict[int, Any] = {}
        while len(parts) < len(calls):
            number = len(parts)
            try:
                parts[number] = self._ray.get(calls[number])
            except self._ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                raise (cause if isinstance(cause, PairmatchError) else error) from None
            except self._ray.exceptions.RayError as error:
                self._replace(number, error)
                calls[number] = call(number)
        total_b: npt.NDArray[np.float64] = np.sum([part[1] for part in parts.values()], axis=0)
        fitted = np.concatenate([part[0] for part in parts.values()])
        return fitted, total_b, max(part[2] for part in parts.values())

    def stop(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            if worker is not None:
                self._ray.kill(worker)

    def _start(self, numbers: Iterable[int]) -> None:
        """Creates workers and waits until they have their rows."""
        actor = self._ray.remote(BalanceWorker).options(num_cpus=self._cpus, max_restarts=0)
        starting = []
        for number in numbers:
            self._workers[number] = actor.remote(self._cpus)
            starting.append(self._workers[number].start.remote(self._parts[number], self._right))
        _, late = self._ray.wait(starting, num_returns=len(starting), timeout=self._start_seconds)
        if late:
            raise ClusterError(
                f"{len(late)} of {len(starting)} workers could not be started in "
                f"{self._start_seconds:.0f} s. Stop other jobs, add nodes, or use fewer workers."
            )

    def _replace(self, number: int, error: Exception) -> None:
        self._losses += 1
        if self._losses > _MOST_LOSSES:
            raise ClusterError(
                f"Workers of the cluster died {self._losses} times. They may lack memory: use "
                f"larger nodes. The last reason: {' '.join(str(error).split())[:300]}"
            ) from error
        self._ray.kill(self._workers[number])
        self._start([number])


def _shared_tensor(array: Vectors) -> torch.Tensor:
    """A tensor on memory that must not be written; torch warns about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
