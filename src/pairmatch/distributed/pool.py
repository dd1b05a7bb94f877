"""A pool of Ray actors that outlives its actors and nodes: each task is done once.

Tasks in flight on an actor that dies are given to others, and the actor is replaced as soon as the
cluster has room. Actors are added when nodes join.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pairmatch.core.errors import ClusterError, PairmatchError

_POLL_SECONDS = 2.0  # how often the size of the cluster is looked at
_MOST_LOSSES = 5  # workers that may die under one task, or before they start


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor.

    Attributes:
        actor: Its handle.
        starting: Call that ends when the worker is ready; None afterwards.
        running: Number of the task of each call in flight.
    """

    actor: Any
    starting: Any
    running: dict[Any, int] = field(default_factory=dict)


class ActorPool:
    """Runs tasks on actors that have the methods `start()` and `run(task)`.

    Args:
        ray: The connected package.
        create: Creates an actor; does not wait for it.
        wanted: Number of actors that the cluster has room for now.
        depth: Number of tasks that an actor has at once.
        start_seconds: Longest time without any actor that is ready.
    """

    def __init__(
        self,
        ray: Any,
        create: Callable[[], Any],
        wanted: Callable[[], int],
        *,
        depth: int = 2,
        start_seconds: float = 300.0,
    ) -> None:
        self._ray = ray
        self._create = create
        self._wanted = wanted
        self._depth = depth
        self._start_seconds = start_seconds
        self._workers: list[_Worker] = []
        self._losses: dict[int, int] = {}
        self._failed_starts = 0

    def map(self, tasks: Sequence[Any], load: Callable[[Any], Any]) -> Iterator[tuple[int, Any]]:
        """Number and result of every task, in the order in which they are done.

        Args:
            tasks: The tasks.
            load: Turns a task into the argument of `run`, when it is sent to an actor.

        Raises:
            ClusterError: The cluster has no room for an actor, or a task keeps losing its actor.
            PairmatchError: Whatever an actor raises.
        """
        waiting = list(range(len(tasks)))
        last_ready = looked = time.monotonic()
        try:
            self._grow(len(tasks))
            while waiting or any(worker.running for worker in self._workers):
                for worker in self._workers:
                    while waiting and worker.starting is None and len(worker.running) < self._depth:
                        number = heapq.heappop(waiting)
                        call = worker.actor.run.remote(load(tasks[number]))
                        worker.running[call] = number
                calls = [call for worker in self._workers for call in _calls(worker)]
                done = self._ray.wait(calls, timeout=_POLL_SECONDS)[0] if calls else []
                for call in done:
                    yield from self._finish(call, waiting)
                now = time.monotonic()
                if any(worker.starting is None for worker in self._workers):
                    last_ready = now
                elif now - last_ready > self._start_seconds:
                    raise self._no_room()
                if not self._workers or now - looked > _POLL_SECONDS:
                    looked = now
                    self._grow(len(waiting))
        finally:
            for worker in self._workers:
                self._ray.kill(worker.actor)
            self._workers = []

    def _grow(self, most: int) -> None:
        """Creates the actors that the cluster has room for, at least one."""
        for _ in range(min(max(1, self._wanted()), max(1, most)) - len(self._workers)):
            actor = self._create()
            self._workers.append(_Worker(actor, actor.start.remote()))

    def _finish(self, call: Any, waiting: list[int]) -> Iterator[tuple[int, Any]]:
        """Takes the result of a call that is done, or gives the tasks of a dead actor to others."""
        worker = next((one for one in self._workers if call in _calls(one)), None)
        if worker is None:  # of an actor that was found dead by another call
            return
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, PairmatchError) else error) from None
        except self._ray.exceptions.RayError as error:
            self._lose(worker, waiting, error)
            return
        if call == worker.starting:
            worker.starting = None
            self._failed_starts = 0
            return
        yield worker.running.pop(call), result

    def _lose(self, worker: _Worker, waiting: list[int], error: Exception) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        if worker.starting is not None:
            self._failed_starts += 1
        for number in worker.running.values():
            self._losses[number] = self._losses.get(number, 0) + 1
            heapq.heappush(waiting, number)
        if max([self._failed_starts, *self._losses.values()]) >= _MOST_LOSSES:
            raise ClusterError(
                f"Workers of the cluster died {_MOST_LOSSES} times in a row with the same work. "
                "Everything that is done is kept. They may lack memory: give each worker more "
                "(fewer workers, or larger nodes), or choose a smaller model. The last reason: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error

    def _no_room(self) -> ClusterError:
        free = {
            name: number
            for name, number in self._ray.available_resources().items()
            if name in ("CPU", "GPU")
        }
        return ClusterError(
            f"No worker could be started in {self._start_seconds:.0f} s; the cluster has "
            f"{free or 'nothing'} free. Stop other jobs, add nodes, or ask for fewer CPUs per "
            "worker. Everything that is done is kept."
        )


def _calls(worker: _Worker) -> list[Any]:
    return [*worker.running, *([] if worker.starting is None else [worker.starting])]
