"""The names in the folder of a saved matcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pairmatch.io.files import parse_json, read_file
from pairmatch.io.outputs import claim_folder, foreign_names
from pairmatch.io.replacing import current_file

RECORD = "matcher.json"
WEIGHTS = "head.safetensors"
HISTORY = "history.csv"
CARD = "README.md"
FILES = (WEIGHTS, HISTORY, CARD, RECORD)
#: The adapters of fine-tuned backbones; only there if there is one.
ADAPTERS = "adapter.safetensors"
#: What a re-ranker has learned; only there if the matcher has one.
RERANKER = "reranker.safetensors"
#: Files that only some matchers have.
OPTIONAL = (ADAPTERS, RERANKER)
#: Name of the mark of such folders.
KIND = "matcher"
MOST_RECORD_BYTES = 64_000_000
# What the command line writes beside a matcher, and what a clone from the hub has
_BESIDE = {
    "report.html",
    "report.json",
    "run.yaml",
    "skipped.csv",
    "people",
    ".git",
    ".gitattributes",
}


def claim(folder: Path) -> None:
    """Checks that a folder is new, empty or a matcher's, creates it and marks it.

    Raises:
        ConfigurationError: The folder holds something else, or cannot be written.
    """
    claim_folder(folder, KIND, is_earlier=is_earlier_matcher)


def is_earlier_matcher(folder: Path) -> bool:
    """Whether a folder without a mark is a matcher that an earlier version wrote."""
    try:
        record = read_record(folder)
    except (OSError, ValueError):
        return False
    is_record = isinstance(record, dict) and {"format", "pairmatch", "parts"} <= record.keys()
    return is_record and {*FILES, *_BESIDE}.issuperset(foreign_names(folder))


def read_record(folder: Path) -> Any:
    """The JSON value in the record of a matcher.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not JSON.
    """
    return parse_json(read_file(current_file(folder, RECORD), most_bytes=MOST_RECORD_BYTES))
