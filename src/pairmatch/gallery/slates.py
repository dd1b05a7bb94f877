"""Saved slates: Parquet files with a checksum, validated before use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError, DataError, StoreError
from pairmatch.core.ids import id_texts
from pairmatch.core.text import all_spellings, matching, printable
from pairmatch.core.types import Side
from pairmatch.io.files import parse_json, read_file
from pairmatch.io.outputs import check_output_folder, claim_folder, folder_kind
from pairmatch.io.replacing import replace_file

SETTINGS = "slates.json"
SCHEMA = pa.schema(
    [("id", pa.string()), ("rank", pa.int32()), ("candidate", pa.string()), ("score", pa.float32())]
)
_KIND = "slates"
_FILE_NAME = re.compile(r"([ab])-\d{5,}\.parquet")
_TEMPORARY_NAME = re.compile(r"\.[ab]-\d{5,}\.parquet\.[a-z0-9_]{8}|\.slates\.json\.[a-z0-9_]{8}")
_MOST_SETTINGS_BYTES = 1_000_000
_MOST_BYTES = 2**31  # of a file, which holds the slates of 1,024 people
# Checksum of a file: between the data and the footer of Parquet, where other readers ignore it
_MARK = b"pairmatch sha256"
_CHECKSUM_BYTES = len(_MARK) + 32
_FAULTS = (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException)


class Slates:
    """Saved slates: Parquet files with the columns `id`, `rank` (from 1), `candidate`, `score`.

    The files `a-00000.parquet` and so on hold the slates of people of side a, `b-…` those of side
    b. Each has a checksum, which is compared before the file is read.

    Args:
        folder: Folder that `recommend_all` wrote.

    Raises:
        DataError: The folder holds no slates, or a file is damaged when it is read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            if folder_kind(self.folder) != _KIND:  # folders of earlier versions have no mark
                _settings(self.folder)
        except _FAULTS as error:
            raise DataError(
                f"{printable(str(folder))} holds no slates ({SETTINGS}: {_reason(error)})."
            ) from error

    def files(self, side: Side | None = None) -> list[Path]:
        """Paths to the Parquet files of one side or of both, in order."""
        return sorted(
            file
            for file in self._contents()
            if (match := _FILE_NAME.fullmatch(file.name)) and side in (None, match[1])
        )

    def _contents(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError as error:
            raise DataError(_damaged(self.folder, error)) from error

    def table(self, side: Side = "a") -> pa.Table:
        """All slates of a side as one Arrow table."""
        return pa.concat_tables([SCHEMA.empty_table(), *map(read_slates, self.files(side))])

    def of(self, person: str, side: Side = "a") -> list[tuple[str, float]]:
        """Candidates and scores of the slate of one person, best first."""
        slate: list[tuple[str, float]] = []
        wanted = _ids([person])
        for file in self.files(side):
            table = read_slates(file)
            rows = table.filter(pc.is_in(table["id"], value_set=wanted))
            slate += zip(rows["candidate"].to_pylist(), rows["score"].to_pylist(), strict=True)
        return slate

    def exposure(self, side: Side, candidates: Sequence[str]) -> Ints:
        """[candidates] int64: number of slates of a side that each candidate is in."""
        wanted = pa.array(candidates, pa.string())
        counts = np.zeros(len(candidates), np.int64)
        for file in self.files(side):
            shown = read_slates(file)["candidate"]
            indices = pc.index_in(shown, value_set=wanted).drop_null().to_numpy()
            counts += np.bincount(indices, minlength=len(candidates))
        return counts

    def known(self, ids: Iterable[str]) -> set[str]:
        """Subset of the ids of people who have a slate or are in one; damaged files are skipped."""
        people = id_texts("known(ids)", ids)
        wanted = _ids(people)
        found: set[str] = set()
        for file in self.files():
            try:
                table = read_slates(file)
            except DataError:  # `forget` reports it, and erases people from the other files
                continue
            for name in ("id", "candidate"):
                shown = table[name]
                found.update(shown.filter(pc.is_in(shown, value_set=wanted)).to_pylist())
        return matching(people, found)

    def forget(self, ids: Iterable[str]) -> int:
        """Erases people: their own slates, and their rows in those of others.

        Returns:
            Number of rows erased.

        Raises:
            StoreError: Files are damaged or cannot be written; they are listed, and people are
                erased from all others.
        """
        erased = 0
        failures = []
        wanted = _ids(id_texts("forget(ids)", ids))
        for file in self.files():
            try:
                erased += _forget_in(file, wanted)
            except (DataError, OSError) as error:
                failures.append(_words(file, error))
        for file in self._contents():
            # A run that was killed while it wrote leaves an incomplete file
            if _TEMPORARY_NAME.fullmatch(file.name):
                try:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    failures.append(_words(file, error))
        if failures:
            raise StoreError(
                f"The slates in {printable(str(self.folder))} may still hold the people, in "
                f"{len(failures)} files ({erased} rows were erased from the others): "
                f"{' '.join(failures)} Delete these files and write the slates again."
            )
        return erased


def check_slates_folder(folder: Path) -> None:
    """Checks that slates can be written to a folder, without creating anything.

    Raises:
        ConfigurationError: The folder holds files that pairmatch did not write.
    """
    check_output_folder(folder, _KIND, is_earlier=is_earlier_slates)


def claim_slates(folder: Path, settings: dict[str, Any]) -> None:
    """Takes a folder for slates: creates and marks it, and records the settings if it is new.

    Raises:
        ConfigurationError: The folder holds files that pairmatch did not write, or slates of other
            settings.
        DataError: The recorded settings are damaged.
    """
    claim_folder(folder, _KIND, is_earlier=is_earlier_slates, private=True)
    file = folder / SETTINGS
    try:
        recorded = _settings(folder)
    except FileNotFoundError:
        replace_file(file, (json.dumps(settings, indent=2) + "\n").encode(), private=True)
        return
    except _FAULTS as error:
        raise DataError(_damaged(file, error)) from error
    differing = [name for name, value in settings.items() if recorded.get(name) != value]
    if differing:
        raise ConfigurationError(
            f"{printable(str(folder))} holds slates that differ in {', '.join(differing)}: use "
            "another folder, or remove this one."
        )


def read_slates(file: Path) -> pa.Table:
    """Reads one file of slates.

    Raises:
        DataError: The file is damaged, holds something else, or cannot be read.
    """
    try:
        content = read_file(file, most_bytes=_MOST_BYTES)
        _check(content)
        table = pq.ParquetFile(
            pa.BufferReader(content),
            thrift_string_size_limit=10_000_000,
            thrift_container_size_limit=1_000_000,
            page_checksum_verification=True,
        )
        if table.schema_arrow.remove_metadata() != SCHEMA:
            raise ValueError(f"its columns are {', '.join(table.schema_arrow.names)[:200]}")
        slates = table.read()
        slates.validate(full=True)
        if any(column.null_count for column in slates.columns):
            raise ValueError("it has empty cells")
        if not np.isfinite(slates["score"].to_numpy()).all():
            raise ValueError("it has scores that are not finite")
    except _FAULTS as error:
        raise DataError(_damaged(file, error)) from error
    return slates.replace_schema_metadata(None)


def write_slates(file: Path, table: pa.Table) -> None:
    """Writes one file of slates, atomically."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    content = sink.getvalue().to_pybytes()
    data, footer = _split(content)
    checksum = hashlib.sha256(content).digest()
    replace_file(file, data + _MARK + checksum + footer, private=True)


def _forget_in(file: Path, wanted: pa.Array) -> int:
    """Erases people from one file; returns the number of rows erased."""
    table = read_slates(file)
    matches = pc.or_(
        pc.is_in(table["id"], value_set=wanted), pc.is_in(table["candidate"], value_set=wanted)
    )
    kept = table.filter(pc.invert(matches))
    if len(kept) < len(table):
        write_slates(file, kept)
    return len(table) - len(kept)


def _ids(ids: Iterable[str]) -> pa.Array:
    """All spellings of ids as an Arrow array, without those that no file can hold."""
    return pa.array(all_spellings(ids), pa.string())


def _split(content: bytes) -> tuple[bytes, bytes]:
    """The data of a Parquet file, and its footer with what follows it."""
    if len(content) < 12 or content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise ValueError("it is no Parquet file, or not complete")
    length = int.from_bytes(content[-8:-4], "little")
    if length > len(content) - 12:
        raise ValueError("its footer is damaged")
    return content[: -8 - length], content[-8 - length :]


def _check(content: bytes) -> None:
    """Compares a file with its checksum; those of earlier versions have none."""
    data, footer = _split(content)
    if data[-_CHECKSUM_BYTES:-32] == _MARK:
        written = data[:-_CHECKSUM_BYTES] + footer
        if hashlib.sha256(written).digest() != data[-32:]:
            raise ValueError("it was changed after it was written (its checksum differs)")


def _settings(folder: Path) -> dict[str, Any]:
    content = parse_json(read_file(folder / SETTINGS, most_bytes=_MOST_SETTINGS_BYTES))
    if not isinstance(content, dict) or not {"k", "sides", "people_a"} <= content.keys():
        raise ValueError("it does not hold the settings of slates")
    return content


def is_earlier_slates(folder: Path) -> bool:
    """Whether a folder without a mark holds slates of an earlier version, and nothing else."""
    try:
        _settings(folder)
    except _FAULTS:
        return False
    return all(
        file.name == SETTINGS or _FILE_NAME.fullmatch(file.name) or file.name.startswith(".")
        for file in folder.iterdir()
    )


def _damaged(file: Path, error: BaseException) -> str:
    return f"{printable(str(file))} cannot be read: {_reason(error)}."


def _words(file: Path, error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, StoreError):
        return f"{printable(str(file))}: {_reason(error)}."
    return str(error)


def _reason(error: BaseException) -> str:
    words = (isinstance(error, OSError) and error.strerror) or str(error)
    return printable(" ".join(words.split()))[:300].removesuffix(".")
