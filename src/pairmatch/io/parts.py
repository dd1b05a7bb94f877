"""The files of a table: one, a list, a pattern, or a folder of parts as warehouses unload it."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from pairmatch.core.errors import DataError, ImageError
from pairmatch.core.text import printable
from pairmatch.io.files import is_present, read_file
from pairmatch.io.remote import fixed_part, has_wildcard, list_remote, read_remote, remote_url

_log = logging.getLogger(__name__)
SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.zst", ".7z")
_MOST_BYTES = 4 << 30
_PIECE_BYTES = 1 << 24
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_NAMED = 3
#: Of tables whose folders hold rows that are deleted, too.
_VERSIONED = {"_delta_log": "a Delta", "metadata": "an Iceberg"}
_ICEBERG = ".metadata.json"


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file of a table.

    Attributes:
        path: Path to the file; that of a URL has lost one of its slashes.
        name: Path relative to the folder of the table; blank if the file is the whole table.
        partition: Values that the names of its folders state, such as `date=2026-11-01`, by column.
    """

    path: Path
    name: str = ""
    partition: Mapping[str, str] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """Its extension, without that of a compressed file."""
        return format_of(self.path)

    def read(self) -> bytes:
        """Content of the file, decompressed.

        Raises:
            DataError: It has no extension of a table, cannot be read, or is too large.
        """
        if self.format not in SUFFIXES:
            is_archive = self.path.name.lower().endswith(_ARCHIVES)
            fix = "Unpack the archive, and name the folder." if is_archive else ""
            raise DataError(
                f"{location_of(self.path)} is not a folder, and the name of a file must end "
                f"in {', '.join(SUFFIXES)}; text files may be compressed "
                f"({', '.join(_COMPRESSIONS)}). {fix}".rstrip()
            )
        url = table_url(self.path)
        try:
            if url is None:
                content = read_file(self.path, most_bytes=_MOST_BYTES)
            else:
                content = read_remote(url, most_bytes=_MOST_BYTES)
            return _decompressed(self.path, content)
        except OSError as error:
            raise _unreadable(self.path, error) from error


def table_url(path: Path) -> str | None:
    """The URL that the path of a table stands for; None if it is a local file."""
    url = remote_url(path)
    return None if url is None or path.exists() else url


def location_of(path: Path) -> str:
    """A path, or the URL that it stands for, for messages."""
    if path.name.endswith(":") and table_url(path / "bucket") is not None:
        return f"{path}//"  # what tables in several buckets have in common
    return table_url(path) or str(path)


def format_of(path: Path) -> str:
    """Extension of a table, such as `.csv` of `log.csv.gz`; blank if it has none."""
    suffix = path.suffix.lower()
    if suffix in _COMPRESSIONS:
        suffix = Path(path.stem).suffix.lower()
        return "" if suffix == ".parquet" else suffix
    return suffix


def find_parts(source: Path | Sequence[Path]) -> tuple[Path, list[PartFile]]:
    """The path of a table, for messages, and its files in the order of their names.

    Files and folders whose names start with `_` or a dot, such as `_SUCCESS`, are skipped, and so
    are files that are not tables.

    Args:
        source: Path to a file or folder, a pattern such as `log/*.parquet`, or a list of them; all
            may be URLs.

    Raises:
        DataError: There are no files, one is given twice, their formats differ, or the folder
            belongs to a table format with deleted rows.
    """
    if isinstance(source, Path):
        root, parts = _expanded(source)
    else:
        found = [_expanded(path) for path in source]
        root = found[0][0]
        if len(found) > 1:
            root = _common_folder([path for path, _ in found])
        parts = [_relative(part, root) if len(found) > 1 else part for _, p in found for part in p]
    counts = Counter(table_url(part.path) or part.path.resolve() for part in parts)
    place, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(f"{place}: the file is given twice.")
    formats = {part.format: part for part in parts}
    if len(formats) > 1:
        names = ", ".join(printable(part.name) for part in formats.values())
        raise DataError(
            f"{location_of(root)}: the files of a table must have one format, got {names}. Convert "
            "them to one format, or name those of one format with a pattern, such as "
            f"'{location_of(root).rstrip('/')}/*{next(iter(formats))}'."
        )
    return root, parts


def holds_tables(folder: Path) -> bool:
    """Whether a folder holds tables and no photos."""
    has_tables = False
    for path in _files(folder):
        if format_of(path) in SUFFIXES:
            has_tables = True
        elif _is_photo(path):
            return False
    return has_tables


def _is_photo(path: Path) -> bool:
    from pairmatch.io.photo_formats import photo_format  # galleries need no Pillow

    try:
        return photo_format(path) is not None
    except ImageError:
        return False


def fixed_folder(path: Path) -> Path:
    """The folder of a file or pattern that no wildcard is a part of; a folder itself."""
    if path.is_dir():
        return path
    if has_wildcard(str(path)) and not is_present(path):
        url = table_url(path)
        listed = (fixed_part(str(path)), []) if url is None else _listed(path, url)
        return path.parent if listed is None else Path(listed[0])
    is_remote_folder = table_url(path) is not None and not format_of(path)
    return path if is_remote_folder else path.parent


def _common_folder(paths: Sequence[Path]) -> Path:
    """The folder that holds several files and folders.

    Raises:
        DataError: Some are in a storage, and others are not, or are in another one.
    """
    folders = []
    for path in paths:
        folder = path if path.is_dir() else path.parent
        folders.append(str(folder if table_url(path) else folder.absolute()))
    remote = {(table_url(path) or "").split("/")[0] for path in paths}
    if len(remote) > 1:
        raise DataError(
            "The files of a table must all be local or all in one storage, got "
            f"{', '.join(map(location_of, paths[:_NAMED]))}."
        )
    return Path(os.path.commonpath(folders))


def _expanded(path: Path) -> tuple[Path, list[PartFile]]:
    """A path for messages, and the files that it names."""
    url = table_url(path)
    if url is not None:
        return _expanded_url(path, url)
    if path.is_dir():
        return path, _parts(path, _files(path))
    if is_present(path) or not has_wildcard(str(path)):
        return path, [PartFile(path)]
    root = fixed_folder(path)
    matches: list[Path] = []
    for match in sorted(root.glob(str(path.relative_to(root)))):
        matches += _files(match) if match.is_dir() else [match]
    visible = [match for match in matches if not _is_hidden(match.relative_to(root))]
    if not visible:
        raise DataError(f"{path}: no file matches.")
    return root, _parts(root, visible)


def _expanded_url(path: Path, url: str) -> tuple[Path, list[PartFile]]:
    """What `_expanded` returns, of a storage."""
    listed = _listed(path, url)
    if listed is None:
        return path, [PartFile(path)]
    place, names = listed
    root = Path(place)
    for name in names:
        folders = Path(name).parts[:-1]
        for number, folder in enumerate(folders):
            _reject_versioned(
                root.joinpath(*folders[:number]), folder, is_iceberg=name.endswith(_ICEBERG)
            )
    visible = [root / name for name in names if not _is_hidden(Path(name))]
    if not visible and place != url:
        raise DataError(f"{url}: no file matches.")
    return root, _parts(root, visible)


def _listed(path: Path, url: str) -> tuple[str, list[str]] | None:
    try:
        return list_remote(url)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{location_of(path)}: {error.strerror or error}.")


def _parts(root: Path, files: Iterable[Path]) -> list[PartFile]:
    """The tables among files below a folder."""
    parts = []
    others: dict[str, list[str]] = {}
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.is_symlink() and file.is_dir():
            others.setdefault("links to folders, which are not followed", []).append(name)
        elif format_of(file) in SUFFIXES:
            parts.append(PartFile(file, name, _partition(name)))
        else:
            others.setdefault("files that are not tables", []).append(name)
    for kind, names in others.items():
        shown = printable(", ".join(names[:_NAMED]))
        _log.warning(
            "%s: skipped %d %s: %s%s.",
            *(printable(location_of(root)), len(names), kind, shown, ", …" * (len(names) > _NAMED)),
        )
    if not parts:
        raise DataError(f"{location_of(root)}: the folder holds no tables ({', '.join(SUFFIXES)}).")
    return parts


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders that are not hidden, in the order of their names.

    Raises:
        DataError: A subfolder cannot be read, or the folder holds rows that are deleted, too.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}.") from error

    found = []
    for root, folders, files in os.walk(folder, onerror=fail):
        place = Path(root)
        for name in folders:
            _reject_versioned(place, name, is_iceberg=any((place / name).glob(f"*{_ICEBERG}")))
        folders[:] = [name for name in folders if not _is_hidden(Path(name))]
        found += [place / name for name in files if not _is_hidden(Path(name))]
        found += [place / name for name in folders if (place / name).is_symlink()]
    yield from sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _reject_versioned(place: Path, folder: str, *, is_iceberg: bool) -> None:
    """Rejects the folder of a table format that keeps rows that are deleted.

    Args:
        place: Path to the table.
        folder: Name of a folder in it.
        is_iceberg: Whether that folder holds descriptions of an Iceberg table.
    """
    kind = _VERSIONED.get(folder)
    if kind is not None and (folder.startswith("_") or is_iceberg):
        raise DataError(
            f"{location_of(place)}: {kind} table, whose folder holds deleted rows, too. Export "
            "the table, or read it with its own library and pass the data frame."
        )


def _is_hidden(path: Path) -> bool:
    return any(
        name.startswith(".") or (name.startswith("_") and "=" not in name) for name in path.parts
    )


def _relative(part: PartFile, root: Path) -> PartFile:
    name = Path(os.path.relpath(part.path, root)).as_posix()
    return PartFile(part.path, name, {**part.partition, **_partition(name)})


def _partition(name: str) -> dict[str, str]:
    """What the names of the folders of a file state, by column."""
    folders = (folder.partition("=") for folder in name.split("/")[:-1])
    return {unquote(key): unquote(value) for key, sign, value in folders if sign}


def partition_value(text: str, *, is_typed: bool) -> str | int | None:
    """The value in the name of a folder; a whole number if the table states types."""
    if text == _NULL_PARTITION:
        return None
    return int(text) if is_typed and re.fullmatch(r"0|-?[1-9]\d{0,17}", text) else text


def _decompressed(path: Path, content: bytes) -> bytes:
    suffix = path.suffix.lower()
    if suffix not in _COMPRESSIONS or not content:
        return content
    import pyarrow as pa

    codec = _COMPRESSIONS[suffix]
    pieces = []
    size = 0
    with pa.CompressedInputStream(pa.BufferReader(content), codec) as file:
        while piece := file.read(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_BYTES:
                raise OSError(f"the decompressed file has more than {_MOST_BYTES:,} bytes")
    return b"".join(pieces)
