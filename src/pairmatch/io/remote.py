"""Files in cloud storage, read through fsspec."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pairmatch.core.errors import missing_extra

#: Schemes of storages that files are read from. A web address is none: what it returns may change.
SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "file", "memory")
_URL = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/]|/[^/])", re.IGNORECASE)
_WEB = re.compile("https?:/", re.IGNORECASE)
_ON_ONE_MACHINE = ("file", "memory")
_THIS_MACHINE = "localhost/"  # RFC 8089: `file://localhost/data` is `file:///data`
_WILDCARD = re.compile(r"[*?\[]")


def is_remote(source: object) -> bool:
    """Whether a value is the URL of a file in a storage: `s3://bucket/anna.jpg`."""
    return isinstance(source, str) and _URL.match(source) is not None and "://" in source


def is_web_address(path: str | Path) -> bool:
    """Whether a text or path is a web address, which nothing is read from."""
    return _WEB.match(str(path)) is not None


def web_address(path: str | Path) -> str:
    """A web address as it was given: a `Path` of it has lost one of its slashes."""
    scheme, _, rest = str(path).partition(":")
    return f"{scheme}://{rest.lstrip('/')}"


def is_on_every_machine(url: str) -> bool:
    """Whether the URL of a storage means the same file on all machines."""
    return url.partition(":")[0].lower() not in _ON_ONE_MACHINE


def remote_url(path: str | Path) -> str | None:
    """The URL that a text or path names; None if it names a local file.

    A `Path` of a URL has lost one of its slashes: `s3:/bucket`.
    """
    match = _URL.match(str(path))
    if match is None:
        return None
    scheme, rest = match[1].lower(), str(path)[match.end() :]
    if scheme != "file":
        return f"{scheme}://{rest}"
    return f"file:///{rest.lstrip('/').removeprefix(_THIS_MACHINE)}"


def joined_url(folder: str, name: str) -> str | None:
    """URL of a file by its path in a folder, or by its own URL; None if it leaves the folder."""
    base = folder.rstrip("/") + "/"
    url = name if "://" in name else base + name.lstrip("/")
    inside = url.removeprefix(base)
    # fsspec reads `::` as the start of another URL
    leaves = ".." in PurePosixPath(inside).parts or "::" in url or name.startswith("/")
    return None if leaves or inside == url else url


def read_remote(url: str, *, most_bytes: int) -> bytes:
    """Content of a file in a storage. Credentials are those that its library finds.

    Args:
        url: URL with one of `SCHEMES`.
        most_bytes: Largest size in bytes that is read.

    Raises:
        MissingExtraError: fsspec, or its package for this storage, is not installed.
        OSError: The file is missing, is larger than `most_bytes`, or cannot be read; `strerror` has
            the reason.
    """
    storage, path = _opened(url)
    with _errors_of(url):
        return _content(storage, path, most_bytes)


def list_remote(url: str) -> tuple[str, list[str]] | None:
    """The files in a folder of a storage and its subfolders.

    Args:
        url: URL with one of `SCHEMES`: of a folder, or a pattern with `*`, `?` or `[]`. A folder
            whose name has these characters is a folder.

    Returns:
        The URL of the folder, or of the one above the first wildcard, and the paths of the files,
        relative to it and sorted; None if the URL is that of a file, or of nothing.

    Raises:
        MissingExtraError: fsspec, or its package for this storage, is not installed.
        OSError: The storage cannot be read; `strerror` has the reason.
    """
    storage, path = _opened(url)
    with _errors_of(url):
        storage.invalidate_cache()  # new files of a process that runs for days
        if not has_wildcard(path) or storage.exists(path):
            if not storage.isdir(path):
                return None
            return url, _relative(storage.find(path), path)
        found: list[str] = []
        for match in storage.glob(path):
            found += storage.find(match)  # a file is found in itself
        return fixed_part(url), _relative(found, fixed_part(path))


def has_wildcard(path: str) -> bool:
    """Whether a path or URL is a pattern."""
    return _WILDCARD.search(path) is not None


def fixed_part(path: str) -> str:
    """The folder of a pattern above its first wildcard."""
    match = _WILDCARD.search(path)
    return path if match is None else path[: match.start()].rpartition("/")[0]


def _relative(paths: list[str], folder: str) -> list[str]:
    """Paths of fsspec relative to a folder; objects that stand for a folder end in a slash."""
    base = folder.rstrip("/") + "/"
    return sorted({path.removeprefix(base) for path in paths if not path.endswith("/")})


def _opened(url: str) -> tuple[Any, str]:
    """The storage of a URL, and the path in it."""
    if "::" in url:
        raise OSError(errno.EINVAL, "a URL must not hold '::'", url)
    try:
        import fsspec  # type: ignore[import-untyped]

        local = f"file://{_THIS_MACHINE}"
        if url.lower().startswith(local):
            url = f"file:///{url[len(local) :]}"
        storage, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        scheme = url.partition(":")[0]
        raise missing_extra(f"Reading {scheme}:// URLs", "fsspec", "cloud") from error
    return storage, path


@contextmanager
def _errors_of(url: str) -> Iterator[None]:
    """Raises the errors of a storage as `OSError`, with the reason."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "the file does not exist", url) from error
    except Exception as error:  # each storage raises its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OSError(errno.EIO, " ".join(str(reason).split())[:300], url) from error


def _content(storage: Any, path: str, most_bytes: int) -> bytes:
    with storage.open(path, "rb", cache_type="none") as file:
        content: bytes = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"the file has more than {most_bytes:,} bytes", path)
    return content
