"""What will work on this machine, and how to mend what will not."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.devices import available_memory, resolve_device, resolve_dtype
from pairmatch.io.store import default_path

_WEIGHTS = (
    ("qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", 4.3),
    ("qwen3-vl-embedding-2b", "Qwen/Qwen3-VL-Embedding-2B", 4.3),
    ("clip", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 0.6),
)
_EXTRAS = (
    ("onnx", "onnxruntime", "the backbone onnx"),
    ("tune", "optuna", "the learner tuned"),
    ("plots", "matplotlib", "figures in Python"),
    ("lance", "lancedb", "LanceGallery"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the screen.

    Attributes:
        subject: What was looked at.
        state: `ok`, `note` (works, with something to know) or `missing`.
        found: What is there.
        mend: What to do where something is missing; empty otherwise.
    """

    subject: str
    state: Literal["ok", "note", "missing"]
    found: str
    mend: str = ""


def examine(store: Path | None = None) -> list[Check]:
    """Looks at the machine; loads no model, sends nothing, makes no file.

    Args:
        store: The store to look at; the user's own by default.
    """
    return [
        _machine(),
        _torch(),
        *_weights(),
        *_extras(),
        _key(),
        _store(store or default_path()),
        *_plugins(),
    ]


def _machine() -> Check:
    memory = available_memory()
    free = "" if memory == float("inf") else f", {memory / 2**30:.1f} GiB of memory free"
    return Check(
        "pairmatch",
        "ok",
        f"{__version__}, Python {platform.python_version()}, {os.cpu_count() or 1} CPUs{free}",
    )


def _torch() -> Check:
    device = resolve_device("auto")
    dtype = str(resolve_dtype("auto", device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    found = f"{torch.__version__} on {name}, {dtype}, {torch.get_num_threads()} threads"
    if device.type != "cpu":
        return Check("torch", "ok", found)
    speed = (
        "seconds per photo for qwen3-vl-2b"
        if dtype == "bfloat16"
        else "tens of seconds per photo for qwen3-vl-2b"
    )
    return Check(
        "torch",
        "note",
        f"{found}; no accelerator: {speed}, once per photo",
        "use clip, or a machine with a GPU",
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
            checks.append(
                Check(backbone, "ok", f"weights of {name} are here, {sizes[name] / 1e9:.1f} GB")
            )
            continue
        option = "pretrained" if backbone == "clip" else "model"
        checks.append(
            Check(
                backbone,
                "missing",
                f"weights of {name} are not here",
                f"the first use downloads {gigabytes} GB from the Hugging Face hub; offline, copy them and name them "
                f"with --set backbone.{option}=…",
            )
        )
    return checks


def _extras() -> list[Check]:
    checks = []
    for extra, package, purpose in _EXTRAS:
        try:
            checks.append(Check(extra, "ok", f"{package} {version(package)}, for {purpose}"))
        except PackageNotFoundError:
            mend = f"pip install 'pairmatch[{extra}]'"
            checks.append(
                Check(extra, "missing", f"{package} is not installed; {purpose} needs it", mend)
            )
    return checks


def _key() -> Check:
    if os.environ.get("OPENAI_API_KEY"):
        return Check("API key", "ok", "OPENAI_API_KEY is set")
    return Check(
        "API key",
        "note",
        "OPENAI_API_KEY is not set",
        "needed only by a metadata generator that calls that API",
    )


def _store(path: Path) -> Check:
    if not path.exists():
        return Check("store", "ok", f"{path}, not made yet")
    size = sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        features = connection.execute("SELECT count(*) FROM features").fetchone()[0]
        people = connection.execute("SELECT count(DISTINCT person) FROM people").fetchone()[0]
        connection.close()
    except sqlite3.Error as error:
        return Check(
            "store",
            "missing",
            f"{path} cannot be read: {error}",
            "move it away, it will be made anew",
        )
    return Check(
        "store", "ok", f"{path}, {size / 1e6:.1f} MB, {features} features of {people} people"
    )


def _plugins() -> list[Check]:
    """Names that two distributions claim; a name can then not be used."""
    found = registry.plugins()
    others = sorted({plugin.distribution for plugin in found if plugin.distribution != "pairmatch"})
    words = f"{len(found)} parts" + (f", some from {', '.join(others)}" if others else "")
    names = [(plugin.kind, plugin.name) for plugin in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    claims = [
        Check(
            "parts",
            "missing",
            f"{name!r} ({kind}) is claimed twice",
            "uninstall one: pairmatch plugins",
        )
        for kind, name in twice
    ]
    return [Check("parts", "ok", words), *claims]


def screen(checks: Sequence[Check]) -> str:
    """The checks as lines of text, each with its mend."""
    signs = {"ok": "✓", "note": "·", "missing": "✗"}
    width = max(len(check.subject) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{signs[check.state]} {check.subject.ljust(width)}  {check.found}")
        if check.mend:
            lines.append(f"  {' ' * width}  → {check.mend}")
    return "\n".join(lines)
