"""Export and import of metadata as CSV or JSON Lines, and people's corrections."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from pairmatch.core.errors import ConfigurationError, DataError, id_hint, unknown_name
from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.text import counted
from pairmatch.core.types import Profile
from pairmatch.io.images import image_digest
from pairmatch.io.outputs import check_replaced_file
from pairmatch.io.replacing import replace_file
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.io.store import Store
from pairmatch.io.tables import Table, read_table
from pairmatch.metadata.annotate import AnnotationPlan
from pairmatch.metadata.cells import (
    cell_adapter,
    format_cell,
    format_json,
    parse_cell,
    plain_cell,
    read_correction,
    read_corrections,
)
from pairmatch.metadata.outcomes import REFUSALS, generator_key
from pairmatch.metadata.schema import dump, problems_of

_log = logging.getLogger(__name__)
_TOKENS = ("input_tokens", "cached_tokens", "output_tokens")
_USAGE = (*_TOKENS, "usd")
_LEADING = ("id", "photo", "generator")
# How an export starts, as .csv or as .jsonl
_START = rb'(\xef\xbb\xbf)?"?id"?[,;]"?photo"?[,;]"?generator|\{"id": ?"[^\n]*"photo":'
_TRAILING = ("refusal", "detail", *_USAGE, "corrections")


def export_metadata(
    path: str | Path, profiles: Sequence[Profile], generator: MetadataGenerator, store: Store
) -> int:
    """Writes the stored outcomes of a generator, including refusals and costs, and corrections.

    One row per person: `id`, digests of the photo and of the generator (model, prompt and schema),
    the attributes, and in a separate column the person's corrections. Only the owner can read the
    file (mode 0600). In a `.csv` file, a text that a spreadsheet would run as a formula has `'`
    before it (`'=1+1`), which is removed when the file is read back.

    Args:
        path: Path to the `.csv` or `.jsonl` file.
        profiles: People to export.
        generator: Generator that wrote the outcomes; it generates nothing here.
        store: Store of the outcomes.

    Returns:
        Number of rows.

    Raises:
        ConfigurationError: The extension is unknown, the file holds something else than an earlier
            export, or an attribute has the name of a column.
    """
    path = Path(path)
    check_export(path)
    base = generator_key(generator)
    plan = AnnotationPlan.of(profiles, generator, store)
    names = _attributes(generator.schema)
    rows = []
    for index, profile in enumerate(profiles):
        outcome = plan.outcomes.get(plan.keys.get(index, ""), {})
        corrections = plan.corrections.get(profile.id)
        if not outcome and not corrections:
            continue
        rows.append(
            {
                "id": profile.id,
                "photo": image_digest(profile.images[0]) if profile.images else None,
                "generator": base,
                **{name: outcome.get("metadata", {}).get(name) for name in names},
                "refusal": outcome.get("refusal"),
                "detail": outcome.get("detail"),
                **{name: outcome.get("usage", {}).get(name) for name in _USAGE},
                "corrections": format_json(corrections) if corrections else None,
            }
        )
    if path.suffix.lower() == ".jsonl":
        content = "".join(format_json(row) + "\n" for row in rows).encode()
    else:
        cells = ({name: format_cell(value) for name, value in row.items()} for row in rows)
        content = csv_bytes([*_LEADING, *names, *_TRAILING], cells)
    replace_file(path, content, private=True)
    return len(rows)


def check_export(path: Path) -> None:
    """Checks the name of a file, and that it holds nothing else than an earlier export.

    Raises:
        ConfigurationError: Metadata cannot be exported there.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise ConfigurationError(f"Metadata is exported as .csv or .jsonl, got {path.name!r}.")
    check_replaced_file(path, _START, "exported metadata")


def import_metadata(
    path: str | Path, profiles: Sequence[Profile], generator: MetadataGenerator, store: Store
) -> int:
    """Reads a file of `export_metadata` into a store, so that nothing is paid for twice.

    Stored outcomes and corrections are kept, except that an imported outcome replaces a refusal.

    Args:
        path: Path to the `.csv` or `.jsonl` file.
        profiles: People; each row must match the photo of its person.
        generator: Generator that wrote the file; each row must match its model, prompt and schema.
        store: Store that receives the outcomes and corrections.

    Returns:
        Number of new outcomes.

    Raises:
        DataError: Rows do not match: unknown ids, different photos, another generator, values that
            the schema does not allow. Lists all of them.
    """
    columns = [*_LEADING, *_attributes(generator.schema), *_TRAILING]
    table = _read(Path(path), columns, required=_LEADING)
    plan = AnnotationPlan.of(profiles, generator, store)
    outcomes, corrections = _read_rows(table, plan)
    _raise_problems(table)
    new = {
        key: outcome
        for key, outcome in outcomes.items()
        if key not in plan.outcomes or ("refusal" in plan.outcomes[key] and "metadata" in outcome)
    }
    plan.link(store)
    store.put_metadata(new)
    store.put_corrections(
        {person: values for person, values in corrections.items() if person not in plan.corrections}
    )
    return len(new)


def correct(
    path: str | Path, profiles: Sequence[Profile], generator: MetadataGenerator, store: Store
) -> int:
    """Reads people's corrections, which override generated metadata.

    Corrections belong to a person, not to a photo or a model, so they also override later
    metadata. A blank cell is not a correction, `-` erases what the generator wrote, and a cell that
    repeats the generator's value is not a correction, so an exported file can be edited and read
    back. A row replaces all earlier corrections of its person.

    Args:
        path: Path to a `.csv`, `.jsonl` or `.parquet` file with the column `id` and attributes of
            the generator's schema.
        profiles: People whose generated values are compared with the file; rows of other people
            are read without a comparison.
        generator: Generator whose schema the values must match; it generates nothing here.
        store: Store of the corrections, which are kept apart from outcomes.

    Returns:
        Number of people with corrections in the file.

    Raises:
        DataError: Columns are unknown, ids are blank or repeated, or the schema does not allow
            values: lists all of them. Or none of the rows is about one of the profiles.
    """
    names = _attributes(generator.schema)
    table = _read(Path(path), [*_LEADING, *names, *_TRAILING], required=("id",))
    adapters = {name: cell_adapter(info) for name, info in generator.schema.model_fields.items()}
    plan = AnnotationPlan.of(profiles, generator, store)
    generated = {
        profiles[index].id: plan.outcomes.get(key, {}).get("metadata", {})
        for index, key in plan.keys.items()
    }
    corrections: dict[str, dict[str, Any]] = {}
    for row, cells in enumerate(table.rows):
        person = str(plain_cell(table, cells.get("id", "")))
        if not person or person in corrections:
            problem = f"{person!r} occurs twice." if person else "the id is blank."
            table.problem(row, "id", problem)
            continue
        # Earlier corrections in an exported file are kept, unless a cell overrides them
        values = (
            read_corrections(table, row, cells["corrections"]) if "corrections" in cells else {}
        )
        for name in names:
            if name in cells:
                value = read_correction(table, row, name, cells[name], adapters[name])
                if value != generated.get(person, {}).get(name, PydanticUndefined):
                    values[name] = value
        corrections[person] = values
    _raise_problems(table)
    _check_people(table, corrections, [profile.id for profile in profiles])
    store.put_corrections(corrections)
    return sum(bool(values) for values in corrections.values())


# Tables


def _attributes(schema: type[BaseModel]) -> list[str]:
    """Names of the attributes, none of which may be the name of another column."""
    reserved = sorted(set(schema.model_fields) & {*_LEADING, *_TRAILING})
    if reserved:
        raise ConfigurationError(
            f"{schema.__name__} has attributes with reserved column names: {', '.join(reserved)}."
        )
    return list(schema.model_fields)


def _read(path: Path, columns: Sequence[str], *, required: Sequence[str]) -> Table:
    """The table of a file, with its unknown and missing columns as problems."""
    # A word such as `None` or `-` is what an attribute says, or what a person corrected
    table = read_table(path, ids=("id",), lists=True, missing_words=())
    for column in table.columns:
        if column not in columns:
            table.problem_of_file(unknown_name("column", column, columns))
    for name in required:
        if name not in table.columns:
            table.problem_of_file(f"there is no column {name!r}.")
    return table


def _raise_problems(table: Table) -> None:
    if table.problems:
        lines = table.messages()
        raise DataError(
            f"{table.path}: {counted(len(lines), 'problem')}; nothing was imported:", lines
        )


def _check_people(table: Table, people: Collection[str], known: Sequence[str]) -> None:
    """Warns of corrections of people that are not known; it is an error if none is known."""
    others = sorted(set(people) - set(known)) if known else []
    if not others:
        return
    message = (
        f"{table.path}: {len(others):,} of {len(people):,} corrected people are not in the data, "
        f"such as {others[0]!r}.{id_hint(others, known)}"
    )
    if len(others) == len(people):
        raise DataError(f"{message} Nothing was imported.")
    _log.warning("%s", message)


def _read_rows(
    table: Table, plan: AnnotationPlan
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Outcomes by key and corrections by person, from rows that match the people and the plan."""
    base = generator_key(plan.generator)
    schema = plan.generator.schema
    positions = {profile.id: index for index, profile in enumerate(plan.profiles)}
    outcomes: dict[str, dict[str, Any]] = {}
    corrections: dict[str, dict[str, Any]] = {}
    for row, guarded_cells in enumerate(table.rows):
        cells = {name: plain_cell(table, cell) for name, cell in guarded_cells.items()}
        person = str(cells.get("id", ""))
        if person not in positions:
            table.problem(row, "id", f"no person has the id {person!r}.")
            continue
        if "corrections" in cells:
            corrections[person] = read_corrections(table, row, cells["corrections"])
        if not cells.keys() & {"refusal", *schema.model_fields}:
            continue  # the row has corrections only
        key = plan.keys.get(positions[person])
        profile = plan.profiles[positions[person]]
        if key is None or cells.get("photo") != image_digest(profile.images[0]):
            table.problem(row, "photo", f"the photo of {person!r} is not the exported one.")
        elif cells.get("generator") != base:
            table.problem(
                row,
                "generator",
                "written with another model, prompt or schema; name that generator and its "
                "options.",
            )
        else:
            outcome = _outcome(table, row, cells, schema)
            if outcome is not None:
                outcomes[key] = outcome
    return outcomes, corrections


def _outcome(
    table: Table, row: int, cells: Mapping[str, Any], schema: type[BaseModel]
) -> dict[str, Any] | None:
    """The stored form of the outcome in a row; None after a problem."""
    costs: dict[str, float | None] = dict.fromkeys(_USAGE)
    for name in costs.keys() & cells.keys():
        try:
            costs[name] = float(cells[name])
        except (TypeError, ValueError):
            costs[name] = math.nan
        if not 0 <= (costs[name] or 0) < math.inf:
            table.problem(row, name, f"{str(cells[name])[:60]!r} is not a number of at least 0.")
            return None
    usage = {**{name: int(costs[name] or 0) for name in _TOKENS}, "usd": costs["usd"]}
    if "refusal" in cells:
        if cells["refusal"] not in REFUSALS:
            table.problem(row, "refusal", unknown_name("refusal", str(cells["refusal"]), REFUSALS))
            return None
        return {
            "refusal": cells["refusal"],
            "detail": str(cells.get("detail", "")),
            "usage": usage,
        }
    values = {
        name: parse_cell(schema, name, cells[name]) for name in schema.model_fields if name in cells
    }
    try:
        return {"metadata": dump(schema.model_validate(values)), "usage": usage}
    except ValidationError as error:
        table.problem(row, "attributes", problems_of(error))
        return None
