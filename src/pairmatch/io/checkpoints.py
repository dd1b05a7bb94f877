"""Checkpoints of frozen torch models: loading with clear errors, digests, and a memory check."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import nn

from pairmatch.core.devices import available_memory
from pairmatch.core.errors import BackboneError, MissingWeightsError, PairmatchError
from pairmatch.core.progress import bars_on_terminals
from pairmatch.io.files import expand_user, parse_json, read_file

# Weights, configuration, and tokenizers of every kind
_MODEL_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".jinja", ".model"}
_MODEL_SUFFIXES |= {".spm", ".bpe", ".tiktoken", ".vocab"}
_MOST_INDEX_BYTES = 100_000_000
# Weights that checkpoints may lack, because no output that is used depends on them
_UNUSED_WEIGHTS = ("pooler", "mask_token", "position_ids", "decoder", "lm_head", "classifier")


def weights_digest(path: Path) -> str:
    """SHA-256 (hex) of a checkpoint.

    Args:
        path: Path to a weights file, or to a folder, whose model files count with their names.
    """
    if path.is_file():
        files = [path]
        folder = path.parent
    else:
        files = sorted(_model_files(path))
        folder = path
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    versions = tuple(_version(file) for file in files)
    return _digest(versions, names)


def _model_files(folder: Path) -> Iterator[Path]:
    """Model files of a folder, and of the folders and links in it."""
    visited = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        if (place := Path(root).resolve()) in visited:
            folders.clear()
            continue
        visited.add(place)
        folders.sort()
        files = (Path(root, name) for name in names)
        yield from (file for file in files if file.suffix in _MODEL_SUFFIXES and file.is_file())


def _version(file: Path) -> tuple[str, int, int, int, int]:
    """Path of a file, and what changes with its content, whatever its time of change is set to."""
    stat = file.stat()
    return str(file.resolve()), stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _digest(versions: tuple[tuple[str, int, int, int, int], ...], names: tuple[str, ...]) -> str:
    """Cached, because it reads gigabytes: once per process for files that have not changed."""
    total = hashlib.sha256()
    for (file, *_), name in zip(versions, names, strict=True):
        with Path(file).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def freeze(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Puts a model in evaluation mode, without gradients, on a device.

    Weights on the CPU are copied: loaders map them from their file, and would see it change.
    """
    frozen = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
    for weights in (*frozen.parameters(), *frozen.buffers()):
        if weights.device.type == "cpu":
            weights.data = weights.data.clone()
    return frozen


def load_or_explain(
    load: Callable[[], Any],
    *,
    model: str,
    option: str,
    part: str = "backbone",
    otherwise: str = "a backbone that needs no download, 'descriptor' or 'onnx'",
    kind: type[PairmatchError] = BackboneError,
) -> Any:
    """Calls a library's loading function and explains its failures with the possible fixes.

    Args:
        load: Function that loads a component of the model.
        model: Name on the hub, or folder, that the user passed.
        option: Name of the option that holds `model`.
        part: Name of the part that loads the model: `backbone`, or `metadata` for a generator.
        otherwise: Alternative to suggest if the model cannot be downloaded.
        kind: Class of the error to raise.

    Raises:
        MissingWeightsError: (or `kind`) The model is not in the local cache, and the hub cannot be
            reached.
        BackboneError: (or `kind`) The folder does not exist, holds another kind of model or is
            damaged; or there is not enough memory.
    """
    try:
        _check_files(expand_user(model))
        return load()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise kind(
            f"There is too little memory for {model}: choose a smaller model, dtype='bfloat16', or "
            "another device."
        ) from error
    except PairmatchError:
        raise
    except BaseException as error:  # each library raises its own: OSError, KeyError, …
        # The panics of Rust libraries are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        local = expand_user(model)
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        cause = f"{type(error).__name__}: {reason}"
        if local.exists():
            raise kind(
                f"{model} cannot be loaded ({cause}). It must be a complete checkpoint of the kind "
                f"that this {part} loads: config, processor and weights as written by "
                "`save_pretrained`."
            ) from error
        if local.is_absolute() or model.startswith((".", "~")):
            raise kind(
                f"The folder {model} does not exist. Name the checkpoint with {option}=."
            ) from error
        raise (MissingWeightsError if kind is BackboneError else kind)(
            f"{model} is neither a local folder nor in the local cache, and it could not be "
            f"downloaded ({cause}). Connect to the network once; or copy the checkpoint to this "
            f"machine and name its folder with {option}= (command line: --set "
            f"{part}.{option}=FOLDER); or choose {otherwise}."
        ) from error


def _check_files(path: Path) -> None:
    """Refuses named pipes and devices, which loading would wait for, and weights elsewhere.

    Raises:
        OSError: A file of the model is not a regular file, or not in the model's folder.
    """
    try:
        files = [path, *path.iterdir()] if path.is_dir() else [path]
    except OSError:
        return  # loading reports it
    for file in files:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise OSError(f"{file} is not a regular file")
        if file.name.endswith(".index.json") and any(map(_leaves_folder, _shards(file))):
            raise OSError(f"{file} names weights outside the folder of the model")


def _shards(index: Path) -> list[str]:
    """Names of the files that a checkpoint's weights are spread over; loading reports damage."""
    try:
        content = parse_json(read_file(index, most_bytes=_MOST_INDEX_BYTES))
    except (OSError, ValueError):
        return []
    shards = content.get("weight_map") if isinstance(content, dict) else None
    names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    return sorted(names)


def _leaves_folder(name: str) -> bool:
    return PurePath(name).is_absolute() or ".." in PurePath(name).parts


@contextmanager
def offline() -> Iterator[None]:
    """Keeps the Hugging Face libraries off the network for the block: what is cached loads.

    What is not cached is missing at once, without connecting and retrying, and without the
    messages that open_clip logs before it raises.
    """
    from huggingface_hub import constants

    def is_wanted(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    logging.getLogger().addFilter(is_wanted)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.getLogger().removeFilter(is_wanted)


def load_pretrained(
    auto: Any,
    model: str,
    revision: str | None,
    *,
    explained: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Loads a component of a transformers checkpoint; never runs code from the checkpoint.

    Args:
        auto: Class that loads the component, such as `AutoModel`.
        model: Name on the hub, or folder.
        revision: Revision of a hub model; None is `main`.
        explained: Arguments of `load_or_explain` that explain a failure.
        options: Arguments of `from_pretrained`.

    Raises:
        BackboneError: The component cannot be loaded, as in `load_or_explain`.
    """
    with bars_on_terminals():
        return load_or_explain(
            lambda: auto.from_pretrained(
                model, revision=revision or "main", trust_remote_code=False, **options
            ),
            model=model,
            option="model",
            **(explained or {}),
        )


def load_network(
    auto: Any, model: str, revision: str | None, *, unused: tuple[str, ...] = (), **options: Any
) -> Any:
    """Loads a network as `load_pretrained` does, and refuses weights that are not there.

    transformers fills missing weights with random numbers. The names of the weights that are
    missing and not needed are in `missing_weights` of the network.

    Args:
        auto: Class that loads the network, such as `AutoModel`.
        model: Name on the hub, or folder.
        revision: Revision of a hub model; None is `main`.
        unused: Parts of the names of further weights that are not needed.
        options: Arguments of `from_pretrained`.

    Raises:
        BackboneError: The network cannot be loaded, or lacks weights.
    """
    network, report = load_pretrained(auto, model, revision, output_loading_info=True, **options)
    missing = sorted(report["missing_keys"])
    needed = [
        name for name in missing if not any(part in name for part in (*_UNUSED_WEIGHTS, *unused))
    ]
    if needed:
        raise BackboneError(
            f"{model} lacks {len(needed)} weights of its {type(network).__name__} "
            f"({', '.join(needed[:3])}{', …' if len(needed) > 3 else ''}), which would be random "
            "numbers: name a complete checkpoint."
        )
    network.missing_weights = frozenset(missing)
    return network


def checkpoint_fingerprint(model: str, revision: str | None, config: Any) -> dict[str, str | None]:
    """Fingerprint entries that identify the weights: a folder's digest, or a hub name and commit.

    Args:
        model: Name on the hub, or folder.
        revision: Requested revision.
        config: Loaded configuration, which holds the commit of a hub model.
    """
    local = expand_user(model)
    if local.is_dir():
        return {"model": None, "weights": weights_digest(local)}
    return {"model": model, "weights": getattr(config, "_commit_hash", None) or revision}


def check_unchanged(
    read: Mapping[str, str | None],
    model: str,
    revision: str | None,
    config: Any,
    *,
    kind: type[PairmatchError] = BackboneError,
) -> None:
    """Checks that what was loaded is what `checkpoint_fingerprint` read before.

    Raises:
        BackboneError: (or `kind`) Files of the checkpoint have changed in between.
    """
    if checkpoint_fingerprint(model, revision, config) != read:
        raise kind(
            f"The files of {model} changed after they were first read, so it is not known what "
            "was loaded: run again, and in Python make a new object."
        )


def check_memory(
    model: str,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device,
    *,
    kind: type[PairmatchError] = BackboneError,
) -> None:
    """Rejects a model that does not fit in memory, before the machine starts to swap.

    Args:
        model: Folder with safetensors files, or name on the hub; a hub model that is not in the
            local cache is not checked.
        revision: Revision of a hub model.
        dtype: Number format of the loaded weights.
        device: Device that the weights are loaded to.
        kind: Class of the error to raise.

    Raises:
        BackboneError: (or `kind`) There is too little memory.
    """
    needed = _parameters(model, revision) * dtype.itemsize
    available = (
        float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()
    )
    if needed > available:
        raise kind(
            f"There is too little memory for {model}: its weights take {needed / 2**30:.1f} GiB in "
            f"{dtype}, and {available / 2**30:.1f} GiB are free. Choose a smaller model, "
            "dtype='bfloat16', or another device."
        )


def _parameters(model: str, revision: str | None) -> int:
    """Number of parameters, from the headers of the safetensors files; 0 if they are unreadable."""
    from huggingface_hub import snapshot_download
    from safetensors import SafetensorError, safe_open

    folder = expand_user(model)
    count = 0
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):  # missing or damaged: loading reports it
        return 0
    return count
