"""Matchers on the Hugging Face Hub: a saved folder goes up as it is, and comes back by name."""

from __future__ import annotations

import json
from pathlib import Path

from pairmatch.core.errors import SavedMatcherError
from pairmatch.matcher import saving

FILES = ("matcher.json", "head.safetensors", "history.csv", "README.md")


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool,
    token: str | None,
    endpoint: str | None,
    message: str,
) -> str:
    """Uploads a saved matcher's own files, and nothing else of the folder, as one commit.

    Options that are absolute paths keep the name of the file alone: what is shared tells nothing
    about this machine.

    Returns:
        Address of the repository.

    Raises:
        SavedMatcherError: The hub refused, in its own words, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi(endpoint=endpoint, token=token)
    record = saving.without_folders(json.loads((folder / "matcher.json").read_bytes()))
    contents = {name: (folder / name).read_bytes() for name in FILES}
    contents["matcher.json"] = (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    try:
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.create_commit(
            repo_id,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents.items()
            ],
            commit_message=message,
        )
    except Exception as error:  # the library's many, and those of its HTTP client
        raise SavedMatcherError(
            f"{repo_id} could not be written to the hub: {_words(error)}"
        ) from error
    return str(address)


def fetch(repo_id: str, *, revision: str | None, token: str | None, endpoint: str | None) -> Path:
    """Downloads a matcher's files into the hub's own cache; offline, takes them from there.

    Returns:
        The folder.

    Raises:
        SavedMatcherError: No such repository or revision, no permission, or no network and nothing
            in the cache.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                endpoint=endpoint,
                allow_patterns=list(FILES),
            )
        )
    except Exception as error:  # the library's many, and those of its HTTP client
        raise SavedMatcherError(
            f"{repo_id!r} is neither a folder here nor a matcher on the hub that can be read: {_words(error)}"
        ) from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
