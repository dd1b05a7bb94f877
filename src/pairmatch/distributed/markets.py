"""Whole markets on a cluster: searches for all people, and the passes of `balance`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
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
_RESTARTS = 5  # of a worker that dies


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
        market: The rows, without side b.
        right: [M, K] float32 side b, in the memory of the node.
        threads: Number of CPUs of this process.
    """

    def __init__(self, market: Market, right: Vectors, threads: int) -> None:
        torch.set_num_threads(threads)
        self._market = dataclasses.replace(market, right=_shared_tensor(right))
        self._block = block_of_scores(self._market)

    def start(self) -> None:
        """Does nothing: says that this worker is ready."""

    def fit(self, log_a: Doubles, log_b: Doubles) -> tuple[Doubles, Doubles, float]:
        """One pass over the rows of this worker."""
        return fit_rows(self._market, self._block, log_a, log_b)


class BalanceWorkers:
    """Workers that hold the rows of a market, each its own.

    Args:
        ray: The connected package.
        actor: The class of the workers with its resources.
        market: The whole market.
        count: Number of workers.
        threads: Number of CPUs per worker.
    """

    def __init__(self, ray: Any, actor: Any, market: Market, count: int, threads: int) -> None:
        self._ray = ray
        right = ray.put(market.right.numpy())
        bounds = np.linspace(0, len(market.left), count + 1).astype(int)
        self._rows = [
            slice(int(start), int(stop)) for start, stop in pairwise(bounds) if stop > start
        ]
        nothing = torch.empty(0, market.left.shape[1])
        self._workers = [
            actor.remote(dataclasses.replace(market.part(rows), right=nothing), right, threads)
            for rows in self._rows
        ]

    def wait(self, seconds: float) -> None:
        """Waits until all workers run.

        Raises:
            ClusterError: They do not within a time.
        """
        calls = [worker.start.remote() for worker in self._workers]
        ready, late = self._ray.wait(calls, num_returns=len(calls), timeout=seconds)
        if late:
            raise ClusterError(
                f"{len(late)} of {len(calls)} workers could not be started in {seconds:.0f} s. "
                "Stop other jobs, add nodes, or ask for fewer workers."
            )
        self._results(ready)

    def fit(self, log_a: Doubles, log_b: Doubles) -> tuple[Doubles, Doubles, float]:
        """One pass over all pairs.

        Raises:
            ClusterError: A worker died again and again.
        """
        shared = self._ray.put(log_b)
        calls = [
            worker.fit.remote(log_a[rows], shared)
            for worker, rows in zip(self._workers, self._rows, strict=True)
        ]
        parts = self._results(calls)
        total_b: npt.NDArray[np.float64] = np.sum([total for _, total, _ in parts], axis=0)
        fitted = np.concatenate([part for part, _, _ in parts])
        return fitted, total_b, max(error for _, _, error in parts)

    def stop(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _results(self, calls: Sequence[Any]) -> list[Any]:
        try:
            return list(self._ray.get(list(calls)))
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, PairmatchError) else error) from None
        except self._ray.exceptions.RayError as error:
            raise ClusterError(
                f"A worker of the cluster died {_RESTARTS + 1} times: it may lack memory, use "
                f"larger nodes. The last reason: {' '.join(str(error).split())[:300]}"
            ) from error


def balance_workers(ray: Any, market: Market, count: int, cpus: int) -> BalanceWorkers:
    """Starts workers that are replaced when they die; a pass that was lost is repeated."""
    actor = ray.remote(BalanceWorker).options(
        num_cpus=cpus, max_restarts=_RESTARTS, max_task_retries=_RESTARTS
    )
    return BalanceWorkers(ray, actor, market, count, cpus)


def _shared_tensor(array: Vectors) -> torch.Tensor:
    """A tensor on memory that must not be written; torch warns about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
