"""Records of where people were exported to, so that `forget` finds them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from pairmatch.core.errors import StoreError
from pairmatch.core.text import printable
from pairmatch.io.files import parse_json, read_file
from pairmatch.io.replacing import replace_file

#: Name of the record in the folder of a gallery.
FILE = "exports.json"
_MOST_BYTES = 1_000_000


def record_export(folder: str | Path, address: str) -> None:
    """Notes an address, without secrets, in the folder of a gallery.

    Raises:
        StoreError: The record is damaged or cannot be written.
    """
    path = Path(folder) / FILE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entries = [entry for entry in _entries(path) if entry["address"] != address]
    entries.append({"address": address, "time": now})
    content = json.dumps({"exports": entries}, indent=1, ensure_ascii=False) + "\n"
    try:
        replace_file(path, content.encode(), private=True)
    except OSError as error:
        raise StoreError(
            f"{printable(str(path))} cannot be written: {error.strerror or error}."
        ) from error


def recorded_exports(folder: str | Path) -> list[str]:
    """Addresses that the people of a gallery were exported to, in order.

    Raises:
        StoreError: The record is damaged.
    """
    return [entry["address"] for entry in _entries(Path(folder) / FILE)]


def _entries(path: Path) -> list[dict[str, str]]:
    """Addresses and times of a record."""
    try:
        entries = parse_json(read_file(path, most_bytes=_MOST_BYTES))["exports"]
        return [{key: str(entry[key]) for key in ("address", "time")} for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"The record of exports {printable(str(path))} is damaged: people who were exported "
            "may remain there. Restore it from a backup, or delete it and name the places."
        ) from error
