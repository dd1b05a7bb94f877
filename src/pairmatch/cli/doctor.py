"""Checks of this machine: what works, and how to fix what does not."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.devices import available_memory, resolve_device, resolve_dtype
from pairmatch.core.errors import ClusterError, ConfigurationError, MissingExtraError
from pairmatch.core.text import counted, printable
from pairmatch.io.sqlite import read_values
from pairmatch.io.store import store_path

_WEIGHTS = (
    ("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", 4.3),
    ("qwen3-vl-embedding-2b", "Qwen/Qwen3-VL-Embedding-2B", 4.3),
    ("clip", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 0.6),
)
_EXTRAS = (
    ("onnx", "onnxruntime", "the onnx backbone"),
    ("tune", "optuna", "the tuned learner"),
    ("finetune", "peft", "`pairmatch finetune`"),
    ("track", "mlflow-skinny", "`fit --track`"),
    ("plots", "matplotlib", "figures as files"),
    ("lance", "lancedb", "LanceGallery"),
    ("qdrant", "qdrant-client", "export to Qdrant"),
    ("postgres", "psycopg", "export to PostgreSQL"),
    ("ray", "ray", "--engine ray"),
    ("cloud", "fsspec", "cloud storage"),
    ("serve", "fastapi", "`pairmatch serve`"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        subject: What was checked.
        state: `ok`, `note` (works, with a caveat) or `missing`.
        found: What was found.
        fix: How to fix it; empty if there is nothing to fix.
    """

    subject: str
    state: Literal["ok", "note", "missing"]
    found: str
    fix: str = ""


def examine(store: Path | None = None) -> list[Check]:
    """Checks this machine. Loads no model, sends no data and writes no file.

    Args:
        store: Path to the store to check; the default store of the user if None.
    """
    return [
        _machine(),
        _torch(),
        *_weights(),
        *_extras(),
        *_cluster(),
        _api_key(),
        _store(store),
        *_plugins(),
    ]


def format_checks(checks: Sequence[Check]) -> str:
    """The checks as text, one per line, each followed by its fix."""
    signs = {"ok": "✓", "note": "·", "missing": "✗"}
    width = max(len(check.subject) for check in checks)
    lines = []
    for check in checks:
        found, fix = printable(check.found), printable(check.fix)
        lines.append(f"{signs[check.state]} {check.subject.ljust(width)}  {found}")
        if fix:
            lines.append(f"  {' ' * width}  → {fix}")
    return "\n".join(lines)


def _machine() -> Check:
    memory = available_memory()
    free = "" if memory == float("inf") else f", {memory / 2**30:.1f} GiB of memory free"
    python = platform.python_version()
    return Check(
        "pairmatch",
        "ok",
        f"{__version__}, Python {python}, {counted(os.cpu_count() or 1, 'CPU')}{free}",
    )


def _torch() -> Check:
    device = resolve_device("auto")
    dtype = str(resolve_dtype("auto", device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    summary = (
        f"{torch.__version__} on {name}, {dtype}, {counted(torch.get_num_threads(), 'thread')}"
    )
    if device.type != "cpu":
        return Check("torch", "ok", summary)
    speed = "seconds" if dtype == "bfloat16" else "tens of seconds"
    return Check(
        "torch",
        "note",
        f"{summary}; no accelerator: qwen3-vl-2b takes {speed} per photo, once per photo",
        "use the clip backbone, or a machine with a GPU",
    )


def _weights() -> list[Check]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        sizes = {
            repository.repo_id: repository.size_on_disk for repository in scan_cache_dir().repos
        }
    except CacheNotFound:
        sizes = {}
    checks = []
    for backbone, name, gigabytes in _WEIGHTS:
        if sizes.get(name, 0) > 0.5e9 * gigabytes:
            size = sizes[name] / 1e9
            checks.append(Check(backbone, "ok", f"weights of {name} are cached, {size:.1f} GB"))
            continue
        option = "pretrained" if backbone == "clip" else "model"
        checks.append(
            Check(
                backbone,
                "missing",
                f"weights of {name} are not cached",
                f"the first use downloads {gigabytes} GB from the Hugging Face Hub; without a "
                f"network, copy them here and pass --set backbone.{option}=…",
            )
        )
    return checks


def _extras() -> list[Check]:
    checks = []
    for extra, package, purpose in _EXTRAS:
        try:
            checks.append(Check(extra, "ok", f"{package} {version(package)}, for {purpose}"))
        except PackageNotFoundError:
            missing = f"{package} is not installed: {purpose} cannot be used"
            checks.append(Check(extra, "missing", missing, f"pip install 'pairmatch[{extra}]'"))
    return checks


def _cluster() -> list[Check]:
    """What the Ray cluster of `RAY_ADDRESS` or of this machine has; starts none."""
    from pairmatch.distributed import describe_cluster

    try:
        cluster = describe_cluster()
    except MissingExtraError:
        return []
    except ClusterError as error:
        return [Check("cluster", "missing", str(error), "check RAY_ADDRESS, or unset it")]
    if cluster is None:
        return [
            Check(
                "cluster",
                "note",
                "no Ray cluster runs: --engine ray uses this machine alone",
                "start one with `ray start --head`, and join each node with the line it prints",
            )
        ]
    return [Check("cluster", "ok", f"Ray cluster of {cluster}")]


def _api_key() -> Check:
    if os.environ.get("OPENAI_API_KEY"):
        return Check("API key", "ok", "OPENAI_API_KEY is set")
    return Check(
        "API key",
        "note",
        "OPENAI_API_KEY is not set",
        "set it to use a metadata generator that calls the OpenAI API",
    )


def _store(named: Path | None) -> Check:
    try:
        path = store_path(named)
        if not path.exists():
            return Check("store", "ok", f"{path}, not created yet")
        size = sum(part.stat().st_size for part in path.parent.glob(f"{glob.escape(path.name)}*"))
        features, people = read_values(
            path, ["SELECT count(*) FROM features", "SELECT count(DISTINCT person) FROM people"]
        )
    except (ConfigurationError, OSError) as error:  # a StoreError is an OSError
        return Check(
            "store",
            "missing",
            str(error),
            "move the file away, or name another one with --store",
        )
    return Check(
        "store", "ok", f"{path}, {size / 1e6:.1f} MB, {features} features of {people} people"
    )


def _plugins() -> list[Check]:
    """The number of parts, and each name that is unusable because two distributions claim it."""
    plugins = registry.plugins()
    distributions = {plugin.distribution for plugin in plugins} - {"pairmatch"}
    suffix = f", some from {', '.join(sorted(distributions))}" if distributions else ""
    names = [(plugin.kind, plugin.name) for plugin in plugins]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    return [
        Check("parts", "ok", f"{len(plugins)} parts{suffix}"),
        *(
            Check(
                "parts",
                "missing",
                f"{name!r} ({kind}) is claimed by two distributions",
                "uninstall one of them; `pairmatch plugins` lists them",
            )
            for kind, name in duplicates
        ),
    ]
