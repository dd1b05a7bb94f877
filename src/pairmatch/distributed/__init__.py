"""The same work on several machines or processes, with Ray."""

from pairmatch.distributed.cluster import Cluster, describe_cluster
from pairmatch.distributed.engine import RayEngine
from pairmatch.distributed.metadata import RayMetadata

__all__ = ["Cluster", "RayEngine", "RayMetadata", "describe_cluster"]
