"""Uploads saved matchers to the Hugging Face Hub, and downloads them by name."""

from __future__ import annotations

import json
from pathlib import Path

from pairmatch.core.errors import SavedMatcherError
from pairmatch.core.text import error_words
from pairmatch.matcher.files import FILES, OPTIONAL
from pairmatch.matcher.records import without_folders


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool,
    token: str | None,
    endpoint: str | None,
    message: str,
) -> str:
    """Uploads the files of a saved matcher, and nothing else in the folder, as one commit.

    Options that are absolute paths are reduced to the file name, so that nothing about this machine
    is shared. The table that recognizes training people is left out.

    Returns:
        URL of the repository.

    Raises:
        SavedMatcherError: The hub refused (the message quotes it), or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi(endpoint=endpoint, token=token)
    record = without_folders(json.loads((folder / "matcher.json").read_bytes()))
    record.pop("training_people", None)
    record.pop("reference", None)
    names = [*FILES, *(name for name in OPTIONAL if (folder / name).exists())]
    contents = {name: (folder / name).read_bytes() for name in names}
    contents["matcher.json"] = (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    try:
        url = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.create_commit(
            repo_id,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents.items()
            ],
            commit_message=message,
        )
    except Exception as error:  # the library's errors, and those of its HTTP client
        raise SavedMatcherError(
            f"{repo_id} could not be written to the hub: {error_words(error)}"
        ) from error
    return str(url)


def fetch(repo_id: str, *, revision: str | None, token: str | None, endpoint: str | None) -> Path:
    """Downloads a matcher's files into the hub's cache; offline, uses the cached files.

    Returns:
        Path of the folder.

    Raises:
        SavedMatcherError: The repository or revision does not exist, permission is missing, or
            there is no network and the cache is empty.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                endpoint=endpoint,
                allow_patterns=[*FILES, *OPTIONAL],
            )
        )
    except Exception as error:  # the library's errors, and those of its HTTP client
        raise SavedMatcherError(
            f"{repo_id!r} is neither a local folder nor a readable matcher on the hub: "
            f"{error_words(error)}"
        ) from error
