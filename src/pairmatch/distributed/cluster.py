"""Ray clusters: connecting to one, or starting one on this machine."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from pairmatch.core.errors import ClusterError, missing_extra

_START = "start one with `ray start --head`, and join each further node with the line it prints"

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster has.

    Attributes:
        nodes: Number of nodes that are alive.
        cpus: Number of CPUs of all nodes.
        gpus: Number of GPUs of all nodes.
        gpu_nodes: Number of nodes with a GPU.
        cpus_of_gpu_nodes: Number of CPUs of the nodes with a GPU.
    """

    nodes: int
    cpus: int
    gpus: int
    gpu_nodes: int
    cpus_of_gpu_nodes: int

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs on {self.gpu_nodes} nodes" if self.gpus else ", no GPU"
        return f"{self.nodes} {'node' if self.nodes == 1 else 'nodes'}, {self.cpus} CPUs{gpus}"


def import_ray() -> Any:
    """The package ray, without its usage report.

    Raises:
        MissingExtraError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise missing_extra("The engine 'ray'", "ray", "ray") from error
    return ray


def connect(address: str | None = None) -> Any:
    """The package ray, connected to a cluster; does nothing if it is connected already.

    Args:
        address: Address of a cluster; None for the one in `RAY_ADDRESS`, else the one that runs on
            this machine, else a new one of this machine, which ends with this process.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: The cluster cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        return ray
    if not _joins(ray, address):
        ray.init(address="local", include_dashboard=False, **_QUIET)
    return ray


def cluster_of(ray: Any) -> Cluster:
    """What the connected cluster has now."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    return Cluster(
        nodes=len(nodes),
        cpus=sum(int(node.get("CPU", 0)) for node in nodes),
        gpus=sum(int(node["GPU"]) for node in with_gpus),
        gpu_nodes=len(with_gpus),
        cpus_of_gpu_nodes=sum(int(node.get("CPU", 0)) for node in with_gpus),
    )


def describe_cluster(address: str | None = None) -> Cluster | None:
    """What the cluster of this machine or of `RAY_ADDRESS` has; None if there is none.

    Starts no cluster.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: The named cluster cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        return cluster_of(ray)
    if not _joins(ray, address):
        return None
    try:
        return cluster_of(ray)
    finally:
        ray.shutdown()


def _joins(ray: Any, address: str | None) -> bool:
    """Connects to the cluster of an address, of `RAY_ADDRESS` or of this machine, if it runs.

    Raises:
        ClusterError: A named cluster cannot be reached.
    """
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=named or "auto", **_QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if named:
            raise ClusterError(
                f"The Ray cluster {named} cannot be reached ({error}): check the address, or "
                f"{_START}."
            ) from error
        return False
    return True
