"""Metadata in and out of the store as CSV or JSON Lines, and what people say about themselves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pairmatch.core.errors import ConfigurationError, DataError, unknown_name
from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.types import Profile
from pairmatch.io.files import write_file
from pairmatch.io.images import image_digest
from pairmatch.io.store import Store
from pairmatch.io.tables import Table, read_table
from pairmatch.metadata.annotate import Work, generator_key
from pairmatch.metadata.schema import problems_of

_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "usd")
_BEFORE, _AFTER = ("id", "photo", "generator"), ("refusal", "detail", *_USAGE, "corrections")
_ERASED = "-"


def export_metadata(
    path: str | Path, profiles: Sequence[Profile], generator: MetadataGenerator, store: Store
) -> int:
    """Writes every outcome that a generator left about these people, refusals and cost included, and corrections.

    One row per person: `id`, digests of the photo and of the generator (model, prompt and schema),
    the attributes, and apart from them what the person corrected. The file is private to its owner
    (mode 0600).

    Args:
        path: `.csv` or `.jsonl`.
        profiles: People.
        generator: Whose outcomes; it is not asked.
        store: Where they are.

    Returns:
        Number of rows.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise ConfigurationError(f"Metadata is written as .csv or .jsonl, got {path.name!r}.")
    work, base = Work.of(profiles, generator, store), generator_key(generator)
    names = _attributes(generator.schema)
    rows = []
    for index, profile in enumerate(profiles):
        outcome = work.kept.get(work.keys.get(index, ""), {})
        own = work.corrections.get(profile.id)
        if not outcome and not own:
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
                "corrections": json.dumps(own, ensure_ascii=False) if own else None,
            }
        )
    if path.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [*_BEFORE, *names, *_AFTER], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        text = buffer.getvalue()
    write_file(path, text.encode(), private=True)
    return len(rows)


def import_metadata(
    path: str | Path, profiles: Sequence[Profile], generator: MetadataGenerator, store: Store
) -> int:
    """Reads what `export_metadata` wrote into a store, so that nobody is asked, and paid for, again.

    Outcomes and corrections that are in the store already stay; an outcome takes the place of a
    refusal.

    Args:
        path: `.csv` or `.jsonl`.
        profiles: People; each row must fit its person's photo.
        generator: Who wrote the outcomes; each row must fit its model, prompt and schema.
        store: Where they go.

    Returns:
        Number of outcomes that the store did not have.

    Raises:
        DataError: Every row that does not fit: unknown ids, other photos, another generator, values
            that the schema does not allow.
    """
    table = _read(Path(path), [*_BEFORE, *_attributes(generator.schema), *_AFTER], required=_BEFORE)
    work, base = Work.of(profiles, generator, store), generator_key(generator)
    people = {profile.id: index for index, profile in enumerate(profiles)}
    outcomes: dict[str, dict[str, Any]] = {}
    corrections: dict[str, dict[str, Any]] = {}
    for row, cells in enumerate(table.rows):
        person = str(cells.get("id", ""))
        if person not in people:
            table.problem(row, "id", f"there is nobody with the id {person!r}.")
            continue
        if "corrections" in cells:
            corrections[person] = _own(table, row, cells["corrections"])
        if not cells.keys() & {"refusal", *generator.schema.model_fields}:
            continue  # corrections alone
        key = work.keys.get(people[person])
        if key is None or cells.get("photo") != image_digest(profiles[people[person]].images[0]):
            table.problem(
                row, "photo", f"{person!r} has another photo here than where the file was written."
            )
        elif cells.get("generator") != base:
            table.problem(
                row,
                "generator",
                "another model, prompt or schema wrote this; name it with its options.",
            )
        else:
            outcome = _outcome(table, row, cells, generator.schema)
            if outcome is not None:
                outcomes[key] = outcome
    _raise(table)
    new = {
        key: outcome
        for key, outcome in outcomes.items()
        if key not in work.kept or ("refusal" in work.kept[key] and "metadata" in outcome)
    }
    work.link(store)
    store.put_metadata(new)
    store.put_corrections(
        {person: own for person, own in corrections.items() if person not in work.corrections}
    )
    return len(new)


def correct(
    path: str | Path, profiles: Sequence[Profile], generator: MetadataGenerator, store: Store
) -> int:
    """Reads what people say about themselves; it stands above whatever a generator writes, now and later.

    It belongs to the person, not to the photo or the model, so it survives annotating anew. A blank
    cell says nothing, `-` erases what the generator wrote, and a cell that repeats the generator's
    own words is no correction, so that an exported file can be edited and read. A row takes the
    place of all earlier corrections of its person.

    Args:
        path: `.csv`, `.jsonl` or `.parquet` with the columns `id` and attributes of the generator's
            schema.
        profiles: People whose generated metadata is known; rows of others are taken as they are.
        generator: Whose schema the values must fit; it is not asked.
        store: Where corrections are kept, apart from outcomes.

    Returns:
        Number of people with corrections in the file.

    Raises:
        DataError: Every unknown column and every value that the schema does not allow.
    """
    names = _attributes(generator.schema)
    table = _read(Path(path), [*_BEFORE, *names, *_AFTER], required=("id",))
    adapters = {name: _adapter(info) for name, info in generator.schema.model_fields.items()}
    work = Work.of(profiles, generator, store)
    written = {
        profiles[index].id: work.kept.get(key, {}).get("metadata", {})
        for index, key in work.keys.items()
    }
    corrections: dict[str, dict[str, Any]] = {}
    for row, cells in enumerate(table.rows):
        person = str(cells.get("id", ""))
        if not person or person in corrections:
            table.problem(
                row, "id", f"{person!r} is given twice." if person else "the id is blank."
            )
            continue
        # An exported file holds earlier corrections apart: they stay where no cell says otherwise
        own = _own(table, row, cells["corrections"]) if "corrections" in cells else {}
        for name in names:
            if name in cells:
                value = _value(table, row, name, cells[name], adapters[name])
                if value != written.get(person, {}).get(name, PydanticUndefined):
                    own[name] = value
        corrections[person] = own
    _raise(table)
    store.put_corrections(corrections)
    return sum(bool(own) for own in corrections.values())


def _attributes(schema: type[BaseModel]) -> list[str]:
    clash = sorted(set(schema.model_fields) & {*_BEFORE, *_AFTER})
    if clash:
        raise ConfigurationError(
            f"Attributes of {schema.__name__} have names of columns: {', '.join(clash)}."
        )
    return list(schema.model_fields)


def _read(path: Path, known: Sequence[str], *, required: Sequence[str]) -> Table:
    table = read_table(path, lists=True)
    table.problems += [
        f"{path.name}: {unknown_name('column', column, known)}"
        for column in table.columns
        if column not in known
    ]
    table.problems += [
        f"{path.name}: there is no column {name!r}."
        for name in required
        if name not in table.columns
    ]
    return table


def _raise(table: Table) -> None:
    if table.problems:
        raise DataError(
            f"{table.path}: {len(table.problems)} problems; nothing was read:", table.problems
        )


def _outcome(
    table: Table, row: int, cells: Mapping[str, Any], schema: type[BaseModel]
) -> dict[str, Any] | None:
    usage: dict[str, float | None] = dict.fromkeys(_USAGE)
    for name in usage.keys() & cells.keys():
        try:
            usage[name] = float(cells[name])
        except (TypeError, ValueError):
            usage[name] = math.nan
        if not 0 <= (usage[name] or 0) < math.inf:
            table.problem(row, name, f"{str(cells[name])[:60]!r} is no number of at least 0.")
            return None
    counted = {**{name: int(usage[name] or 0) for name in _USAGE[:3]}, "usd": usage["usd"]}
    if "refusal" in cells:
        return {
            "refusal": cells["refusal"],
            "detail": str(cells.get("detail", "")),
            "usage": counted,
        }
    values = {
        name: _parsed(schema, name, cells[name]) for name in schema.model_fields if name in cells
    }
    try:
        return {"metadata": schema.model_validate(values).model_dump(mode="json"), "usage": counted}
    except ValidationError as error:
        table.problem(row, "attributes", problems_of(error))
        return None


def _parsed(schema: type[BaseModel], name: str, cell: Any) -> Any:
    """The cell as the attribute takes it: as it is, or else as the JSON that it holds."""
    adapter = _adapter(schema.model_fields[name])
    for value in _readings(cell):
        try:
            return adapter.validate_python(value)
        except ValidationError:
            continue
    return cell


def _adapter(info: FieldInfo) -> TypeAdapter[Any]:
    """Reads values of one attribute of a schema, with its limits."""
    kind: Any = info.annotation
    return TypeAdapter(Annotated[kind, *info.metadata] if info.metadata else kind)


def _value(table: Table, row: int, name: str, cell: Any, adapter: TypeAdapter[Any]) -> Any:
    """A cell of a correction as a JSON value."""
    if cell == _ERASED:
        try:
            return adapter.validate_python(None)
        except ValidationError:
            table.problem(row, name, "this attribute must say something, so it cannot be erased.")
            return None
    problem = ""
    for value in _readings(cell):
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json")
        except ValidationError as error:
            problem = problem or error.errors()[0]["msg"]
    table.problem(row, name, f"{str(cell)[:60]!r}: {problem}.")
    return None


def _readings(cell: Any) -> list[Any]:
    if not isinstance(cell, str):
        return [cell, str(cell)]
    try:
        return [cell, json.loads(cell)]
    except ValueError:
        return [cell]


def _own(table: Table, row: int, cell: Any) -> dict[str, Any]:
    try:
        found = json.loads(cell)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        table.problem(row, "corrections", "not a JSON object of attributes.")
        return {}
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
