"""What frozen torch models share.

Device and number format, digests of weights, errors of loading, several photos.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pairmatch.core.devices import available_memory
from pairmatch.core.errors import BackboneError, PairmatchError

_CONTENT = {".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".jinja", ".model"}


def weights_digest(path: Path) -> str:
    """SHA-256 (hex) over the content of a weights file, or of all model files of a folder with their names."""
    files = (
        [path]
        if path.is_file()
        else sorted(f for f in path.rglob("*") if f.suffix in _CONTENT and f.is_file())
    )
    marks = tuple(
        (str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files
    )
    names = tuple(
        file.name if path.is_file() else file.relative_to(path).as_posix() for file in files
    )
    return _digest(marks, names)


@lru_cache(maxsize=64)
def _digest(marks: tuple[tuple[str, int, int], ...], names: tuple[str, ...]) -> str:
    """Reads gigabytes, so once per process for files that have not changed since."""
    whole = hashlib.sha256()
    for (file, _, _), name in zip(marks, names, strict=True):
        with Path(file).open("rb") as stream:
            whole.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def freeze(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Evaluation mode, no gradients, on the device."""
    return model.eval().requires_grad_(False).to(device=device, dtype=dtype)


def load_or_explain(
    load: Callable[[], Any],
    *,
    model: str,
    option: str,
    part: str = "backbone",
    otherwise: str = "a backbone that needs no download, 'descriptor' or 'onnx'",
    kind: type[PairmatchError] = BackboneError,
) -> Any:
    """Calls a library's loading function; its many kinds of failure become one message with the ways to go on.

    Args:
        load: Loads something that belongs to the model.
        model: Hub name or folder that the user gave.
        option: Name of the part's option that it came from.
        part: What loads it: `backbone`, or `metadata` for a generator.
        otherwise: What to choose instead where nothing can be downloaded.
        kind: Error to raise.

    Raises:
        BackboneError: (or `kind`) The folder does not exist, holds no such model or is damaged; the
            hub cannot be reached and the model is not in the local cache; or memory does not
            suffice.
    """
    try:
        return load()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise kind(
            f"There is too little memory for {model}: choose a smaller model, dtype='bfloat16', or another device."
        ) from error
    except (
        Exception
    ) as error:  # OSError, ValueError, KeyError, RuntimeError, SafetensorError: each library's own
        local = Path(model).expanduser()
        first = " ".join(str(error).split())[:300] or type(error).__name__
        if local.is_dir() or local.is_file():
            raise kind(
                f"{model} cannot be loaded ({type(error).__name__}: {first}). It must be a complete checkpoint of the "
                f"kind that this {part} loads: config, processor and weights as `save_pretrained` writes them."
            ) from error
        if local.is_absolute() or model.startswith((".", "~")):
            raise kind(
                f"The folder {model} does not exist. Name the checkpoint with {option}=."
            ) from error
        raise kind(
            f"{model} is neither a local folder nor in the local cache, and it could not be downloaded "
            f"({type(error).__name__}: {first}). Ways to go on: connect to the network once; copy the checkpoint "
            f"here and name its folder with {option}= (command line: --set {part}.{option}=FOLDER); or choose "
            f"{otherwise}."
        ) from error


def load_pretrained(
    auto: Any,
    model: str,
    revision: str | None,
    *,
    explained: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Loads something of a transformers checkpoint by one of its Auto classes; code in a checkpoint is never run.

    Args:
        auto: The class, such as `AutoModel`.
        model: Hub name or folder.
        revision: Of a hub model; None for the main one.
        explained: How a failure is explained: arguments of `load_or_explain`.
        options: Of `from_pretrained`.

    Raises:
        BackboneError: As `load_or_explain`.
    """
    return load_or_explain(
        lambda: auto.from_pretrained(
            model, revision=revision or "main", trust_remote_code=False, **options
        ),
        model=model,
        option="model",
        **(explained or {}),
    )


def checkpoint_mark(model: str, revision: str | None, config: Any) -> dict[str, str | None]:
    """Entries of a fingerprint that say which weights: a folder's digest, or a hub model's name and commit.

    Args:
        model: Hub name or folder.
        revision: That was asked for.
        config: The loaded configuration, which knows the commit.
    """
    local = Path(model).expanduser()
    if local.is_dir():
        return {"model": None, "weights": weights_digest(local)}
    return {"model": model, "weights": getattr(config, "_commit_hash", None) or revision}


def check_memory(
    model: str,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device,
    *,
    kind: type[PairmatchError] = BackboneError,
) -> None:
    """Refuses to load what cannot fit, before the machine starts to swap.

    Args:
        model: Folder with safetensors files, or a hub name; nothing is known of one that is not in
            the local cache.
        revision: Of a hub model.
        dtype: The weights are loaded as.
        device: Where to.
        kind: Error to raise.

    Raises:
        BackboneError: (or `kind`) There is too little memory.
    """
    needed = _parameters(model, revision) * dtype.itemsize
    available = (
        float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()
    )
    if needed > available:
        raise kind(
            f"There is too little memory for {model}: its weights take {needed / 2**30:.1f} GiB in {dtype}, and "
            f"{available / 2**30:.1f} GiB are free. Choose a smaller model, dtype='bfloat16', or another device."
        )


def _parameters(model: str, revision: str | None) -> int:
    """Number of a checkpoint's parameters by the headers of its safetensors files.

    0 where these cannot be read.
    """
    from huggingface_hub import snapshot_download
    from safetensors import SafetensorError, safe_open

    folder = Path(model).expanduser()
    count = 0
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):  # not here, or damaged: whoever loads it says so
        return 0
    return count
