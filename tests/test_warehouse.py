"""Exports of warehouses and databases as they come, with bad rows: what is read and skipped."""

import csv
import datetime
import decimal
import gzip
import io
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmatch import Pairs
from pairmatch.cli import app

PEOPLE = 60  # on each side
ROWS = 400
REPEATED = 20  # rows about a pair of an earlier row
START = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
COLUMNS = {"LIKER": "id_a", "LIKED": "id_b", "USER_ID": "id", "BIO": "text"}
READ = {"on_bad_row": "skip", "most_skipped": 0.1, "columns": COLUMNS, "keep_words": ["NA"]}


def people():
    """Ids with leading zeros, missing words, a country that is the word NA, sets, numbers."""
    for side in "12":
        for n in range(PEOPLE):
            yield {
                "USER_ID": f"00{side}{n:03}",
                "BIO": f'I cook; "well",\nand run. {n}',
                "INCOME": decimal.Decimal(n * 1100 + 1500) / 4,
                "PREMIUM": n % 3 == 0,
                "ZIP": f"0{n:04}",
                "COUNTRY": ("NA", "KR")[n % 2],
                "TAGS": ["jazz", "tea"] if n % 2 else ["pop"],
                "AGE": None if n % 10 == 0 else 20 + n % 40,
            }


def decisions():
    """Rows, and the reason of each that must be skipped."""
    for n in range(ROWS):
        pair = n if n < ROWS - REPEATED else n - (ROWS - REPEATED)
        a, b = pair % PEOPLE, (pair * 7 + pair // PEOPLE) % PEOPLE
        row = {
            "LIKER": f"001{a:03}",
            "LIKED": f"002{b:03}",
            "A_LIKES": n % 4 != 0,
            "B_LIKES": (True, False, None)[n % 3],
            "TIME": START + datetime.timedelta(minutes=n),
        }
        reason = ""
        if n in (50, 150):
            row["LIKED"], reason = row["LIKER"], "paired with itself"
        elif n in (70, 170):
            row["LIKED"], reason = "009999", "is not in"
        elif n == 210:
            row["LIKER"], reason = None, "the id is"
        elif n == 310:
            row["LIKER"], row["LIKED"] = row["LIKED"], row["LIKER"]
            reason = "is on both sides"
        yield row, reason


EXPECTED = [reason for _, reason in decisions() if reason]


def text_parts(folder, rows, separator, form):
    """Three parts of CSV, one of them compressed, with a byte order mark and CRLF."""
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for number in range(3):
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter=separator, lineterminator="\r\n")
        writer.writerow(["", *rows[0]])  # the index of pandas
        part = rows[number::3]
        writer.writerows([n, *map(form, row.values())] for n, row in enumerate(part))
        content = b"\xef\xbb\xbf" + file.getvalue().encode()
        path = folder / f"data_0_{number}_0.csv"
        if number == 1:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)
    return folder


def snowflake(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.000 +0000")
    return "\\N" if value is None else ";".join(value) if isinstance(value, list) else value


def postgres_in_german(value):
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, decimal.Decimal):
        return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S+00")
    return "" if value is None else ";".join(value) if isinstance(value, list) else value


def parquet_parts(folder, rows):
    """Days as folders; dictionaries, decimals, and zoned timestamps."""
    for number in range(2):
        part = folder / f"day={number + 1}"
        part.mkdir(parents=True)
        table = pa.Table.from_pylist(rows[number::2])
        first = table.column_names[0]
        encoded = table[first].dictionary_encode()
        pq.write_table(table.set_column(0, first, encoded), part / "part-0.snappy.parquet")
    return folder


def export(kind, folder):
    log = [row for row, _ in decisions()]
    profiles = list(people())
    if kind == "frames":
        return pa.Table.from_pylist(log), pa.Table.from_pylist(profiles)
    if kind == "parquet":
        return parquet_parts(folder / "log", log), parquet_parts(folder / "people", profiles)
    separator, form = {"snowflake": (",", snowflake), "postgres": (";", postgres_in_german)}[kind]
    tables = zip(("log", "people"), (log, profiles), strict=True)
    return tuple(text_parts(folder / name, rows, separator, form) for name, rows in tables)


@pytest.mark.parametrize("kind", ["snowflake", "postgres", "parquet", "frames"])
def test_an_export_is_read_as_it_comes(kind, tmp_path, caplog):
    log, profiles = export(kind, tmp_path)
    read = Pairs.from_frame if kind == "frames" else Pairs.read
    pairs = read(log, profiles=profiles, **READ)
    # Both people of one row are on the other side, too
    reasons = {(entry.file, entry.location): entry.reason for entry in pairs.skipped}
    assert sorted(EXPECTED) == sorted(
        next(expected for expected in EXPECTED if expected in reason) for reason in reasons.values()
    )
    assert len(pairs.pairs) == ROWS - len(EXPECTED) - REPEATED
    assert f"{REPEATED} pairs were decided several times ({2 * REPEATED} rows)" in caplog.text
    person = pairs.profiles["001007"]
    assert person.text == 'I cook; "well",\nand run. 7'
    texts = ("true", "t") if kind == "postgres" else (True,)
    assert person.attributes.pop("PREMIUM") in (False, "f")
    assert pairs.profiles["001006"].attributes["PREMIUM"] in texts
    person.attributes.pop("day", None)
    assert person.attributes == {
        "INCOME": 2300.0,
        "ZIP": "00007",
        "COUNTRY": "KR",
        "TAGS": "jazz;tea",
        "AGE": 27,
    }
    assert pairs.profiles["001010"].attributes["COUNTRY"] == "NA"
    assert "AGE" not in pairs.profiles["001010"].attributes
    times = {pair.time for pair in pairs.pairs}
    assert START in times or min(times) > START
    assert all(time.utcoffset() == datetime.timedelta(0) for time in times)


@pytest.mark.slow
def test_an_export_is_fitted_end_to_end(tmp_path):
    log, profiles = export("postgres", tmp_path)
    columns = " ".join(f"--column {source}={name}" for source, name in COLUMNS.items())
    command = (
        f"fit {log} --profiles {profiles} {columns} --keep-word NA --on-bad-row skip "
        "--most-skipped 0.1 --backbone attributes --metadata none --learner frozen --split-by "
        f"people --no-compare --no-learning-curve --output {tmp_path / 'matcher'} --store "
        f"{tmp_path / 'store.sqlite'} --quiet"
    )
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    with (tmp_path / "matcher" / "skipped.csv").open(newline="") as file:
        rows = {(row["file"], row["location"]) for row in csv.DictReader(file)}
        assert len(rows) == len(EXPECTED)
