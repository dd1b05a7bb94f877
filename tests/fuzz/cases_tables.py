"""Pairs files, profiles files, exclusions and folders of photos."""

import contextlib
import csv
import datetime
import decimal
import io
import json
import os
import random
from pathlib import Path
from typing import Any

from .mutations import TEXTS, hostile_value, json_bytes, mutate_bytes, mutate_text
from .people import attributes, photo_bytes
from .subject import Case, Subject

_PHOTOS = 24
_HEADERS = ("", "Unnamed: 0", "__index_level_0__", "id_a", "id_b", "image_a", "text_b", "group")
_SYSTEM_NAMES = (
    *("._p1.png", ".DS_Store", "Thumbs.db", "a.heic", "b.jfif", "c.txt", "d.PNG", "x.jpg.exe"),
    *("a\nb.png", "\u202egnp.png", "e\u0301.png", "\u00e9.png", " .png", ".png", "-k.png"),
)
_FOLDERS = (".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "sub")


class People(Subject):
    """Files about people as CSV, JSON Lines and Parquet, and folders of photos."""

    name = "pairs"
    weight = 22

    def prepare(self, corpus: Path) -> None:
        for number in range(_PHOTOS):
            (corpus / f"p{number}.png").write_bytes(photo_bytes(number))

    def write(self, case: Case) -> None:
        rng = case.rng
        if rng.random() < 0.1:
            _write_folder(rng, case.input / "photos.d", case.corpus)
            return
        if rng.random() < 0.1:
            rows = [{"id": f"p{n}", "other": f"p{n + 1}"} for n in range(10)]
            _write_table(rng, case.input / "exclusions", rows)
            return
        rows = _pairs(rng)
        if rng.random() < 0.4:
            _write_table(rng, case.input / "profiles", _profiles(rng))
            rows = [{name: row[name] for name in ("id_a", "id_b", "outcome")} for row in rows]
        _write_table(rng, case.input / "pairs", rows)

    def use(self, case: Case) -> None:
        from pairmatch import Exclusions, PairmatchError, Pairs
        from pairmatch.data import read_profiles

        folder = case.input / "photos.d"
        if folder.exists():
            people = case.attempt(lambda: read_profiles(folder))
            case.expect(
                people is None or all(p.id and not p.id.startswith(".") for p in people),
                "a hidden file became a person",
            )
            _check_ids(case, [profile.id for profile in people or ()])
            return
        exclusions = next(case.input.glob("exclusions.*"), None)
        if exclusions is not None:
            Exclusions.read(exclusions, symmetric=case.rng.random() < 0.5).of("p1")
            return
        path = next(case.input.glob("pairs.*"))
        profiles = next(case.input.glob("profiles.*"), None)
        options: dict[str, Any] = {"images": case.corpus, "profiles": profiles}
        sides = case.rng.choice((1, 2))
        pairs = case.attempt(lambda: Pairs.read(path, sides=sides, **options))
        kept = case.attempt(
            lambda: Pairs.read(path, sides=sides, on_bad_row="skip", most_skipped=1.0, **options)
        )
        case.expect(pairs is None or kept == pairs, "skipping lost rows of good files")
        if kept is not None:
            _check_skipped(case, kept, pairs is None)
        _read_frame(case, path, sides, options)
        if profiles is not None:
            people = case.attempt(lambda: read_profiles(profiles, images=case.corpus))
            _check_ids(case, [profile.id for profile in people or ()])
        if pairs is not None:
            _check_ids(case, list(pairs.profiles))
            for profile in pairs.people:
                for value in (profile.text, *profile.attributes, *profile.attributes.values()):
                    case.expect(not isinstance(value, str) or _is_utf8(value), "surrogates kept")
            with contextlib.suppress(PairmatchError):  # too few pairs
                pairs.split(seed=1)
        if case.rng.random() < 0.1:
            arguments = ["annotate", path, "--images", case.corpus, "--metadata", "measured"]
            arguments += ["--profiles", profiles] if profiles is not None else []
            store = case.output / "store.sqlite"
            case.command(*arguments, "--store", store, "--dry-run", "--quiet")


def _check_skipped(case: Case, kept: Any, had_problems: bool) -> None:
    """What was left out is listed, and the rest holds together."""
    from pairmatch.io.tables import read_table

    case.expect(bool(kept.skipped) == had_problems, "what was left out is not listed")
    named = {person for pair in kept.pairs for person in (pair.a, pair.b)}
    case.expect(named == set(kept.profiles), "pairs of people who were left out")
    file = case.output / "skipped.csv"
    kept.write_skipped(file)
    written = read_table(file, missing_words=())
    case.expect(len(written.rows) == len(kept.skipped), "lines are missing")


def _read_frame(case: Case, path: Path, sides: Any, options: dict[str, Any]) -> None:
    """The pairs of a Parquet file are those of its table in memory."""
    import pyarrow.parquet as pq

    from pairmatch import Pairs

    if path.suffix != ".parquet":
        return
    table = None
    with contextlib.suppress(Exception):  # not a Parquet file
        table = pq.ParquetFile(path).read()
    if table is not None:
        pairs = case.attempt(lambda: Pairs.read(path, sides=sides, **options))
        frame = case.attempt(lambda: Pairs.from_frame(table, sides=sides, **options))
        case.expect(frame == pairs, "a table in memory is read in another way than its file")


def _check_ids(case: Case, ids: list[str]) -> None:
    case.expect(all(isinstance(i, str) and i and _is_utf8(i) for i in ids), f"bad id in {ids!r}")


def _is_utf8(text: str) -> bool:
    with contextlib.suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False


def _pairs(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(rng.choice((2, 12, 12, 12))):
        row: dict[str, Any] = {}
        for side, person in (("a", number), ("b", number + 12)):
            row |= {f"id_{side}": f"p{person}", f"image_{side}": f"p{person}.png"}
            row |= {
                f"text_{side}": f"I am {person}, 한국",
                f"age_{side}": attributes(person).get("age"),
            }
        rows.append(
            row | {"outcome": rng.choice(("match", "match", "rejected", "")), "group": None}
        )
    return rows


def _profiles(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {"id": f"p{number}", "image": f"p{number}.png", "text": "hi", **attributes(number)}
        for number in range(_PHOTOS)
    ]


def _write_table(rng: random.Random, stem: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows with hostile cells, columns and rows, as a format with mutated bytes."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    soft = [name for name in columns if not name.startswith(("id", "image", "outcome"))] or columns
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 2, 10))):
            name = rng.choice(soft if rng.random() < 0.8 else columns)
            rng.choice(rows)[name] = rng.choice((rng.choice(TEXTS), hostile_value(rng)))
    if rng.random() < 0.25:
        old = rng.choice(columns)
        new = rng.choice((*_HEADERS, *TEXTS))
        old = rng.choice(soft) if rng.random() < 0.7 else old
        rows = [{new if name == old else name: cell for name, cell in row.items()} for row in rows]
    if rng.random() < 0.1:
        rows.insert(rng.randrange(len(rows) + 1), dict(rng.choice(rows)))
    suffix = rng.choice((".csv", ".jsonl", ".parquet"))
    content = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[suffix](rng, rows)
    if rng.random() < 0.2:
        content = mutate_bytes(rng, content)
    if rng.random() < 0.02:
        suffix = rng.choice((".csv", ".jsonl", ".parquet"))  # another format than its name says
    stem.with_suffix(suffix).write_bytes(content)


def _csv(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=rng.choice(("\n", "\r\n", "\r")))
    headers = list(columns)
    if rng.random() < 0.15:
        headers += rng.choice(([""], ["", ""], [headers[0]]))
    writer.writerow(headers)
    ragged = rng.randrange(20 * len(rows))
    for number, row in enumerate(rows):
        cells = ["" if row.get(name) is None else _cell(row[name]) for name in columns]
        if number == ragged:
            cells = rng.choice((cells[:-1], [*cells, "more"], []))
        writer.writerow(cells)
    encoding = rng.choices(("utf-8", "utf-8-sig", "utf-16", "cp949", "cp1252"), (20, 1, 1, 1, 1))[0]
    return text.getvalue().encode(encoding, "replace" if encoding[:3] != "utf" else "surrogatepass")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if abs(_size(value)) < 4000 else "big"


def _size(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _jsonl(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    lines = [json_bytes(row) for row in rows]
    if rng.random() < 0.1:
        lines[rng.randrange(len(lines))] = json_bytes(hostile_value(rng))
    if rng.random() < 0.1:
        row = rng.choice(rows)
        lines.append(mutate_text(rng, json.dumps(row)).encode("utf-8", "surrogatepass"))
    return b"\n".join(lines) + b"\n"


def _parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for name in columns:
        cells = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(cells)
            pq.write_table(pa.table([arrays[name]], ["x"]), io.BytesIO())  # not all can be written
        except (pa.ArrowException, OverflowError, ValueError, UnicodeError):
            texts = [None if cell is None else repr(cell)[:100_000] for cell in cells]
            arrays[name] = pa.array(texts)
    if rng.random() < 0.4:
        name = rng.choice(columns if rng.random() < 0.3 else columns[-2:])
        arrays[name] = _typed_array(rng, len(rows))
    names = [name if _is_utf8(name) else "bad" for name in arrays]
    sink = io.BytesIO()
    table = pa.Table.from_arrays(list(arrays.values()), names=names)
    pq.write_table(table, sink, compression=rng.choice(("none", "snappy", "zstd")))
    return sink.getvalue()


def _typed_array(rng: random.Random, count: int) -> Any:
    """A column of a type that ids, paths and attributes rarely have."""
    import pyarrow as pa

    day = datetime.datetime(2026, 10, 1, tzinfo=datetime.UTC)
    kind, value = rng.choice(
        (
            (pa.decimal128(38, 10), decimal.Decimal("1.5")),
            (pa.decimal256(76, 0), decimal.Decimal(10) ** 70),
            (pa.binary(), b"\xff\x00"),
            (pa.binary(2), b"ab"),
            (pa.large_string(), "x"),
            (pa.dictionary(pa.int8(), pa.string()), "x"),
            (pa.timestamp("ns", "UTC"), day),
            (pa.date32(), day.date()),
            (pa.time64("us"), day.time()),
            (pa.duration("s"), datetime.timedelta(1)),
            (pa.list_(pa.string()), ["p1.png", None]),
            (pa.struct([("x", pa.int8())]), {"x": 1}),
            (pa.map_(pa.string(), pa.int8()), [("x", 1)]),
            (pa.float16(), 1.5),
            (pa.uint64(), 2**64 - 1),
            (pa.null(), None),
            (pa.bool_(), True),
            (pa.float64(), float("nan")),
        )
    )
    return pa.array([None if rng.random() < 0.2 else value for _ in range(count)], kind)


def _write_folder(rng: random.Random, folder: Path, corpus: Path) -> None:
    """A folder of photos with what systems and people leave in one."""
    folder.mkdir()
    for number in range(rng.choice((0, 1, 5))):
        (folder / f"p{number}.png").write_bytes((corpus / f"p{number}.png").read_bytes())
    for _ in range(rng.choice((0, 1, 3))):
        act = rng.randrange(7)
        content = rng.choice((b"", b"text", photo_bytes(1), photo_bytes(2, suffix="gif")))
        target = folder / rng.choice(_SYSTEM_NAMES)
        with contextlib.suppress(FileExistsError, IsADirectoryError):
            if act == 0:
                os.mkfifo(folder / "fifo.png")
            elif act == 1:
                (folder / "loop.png").symlink_to("loop.png")
            elif act == 2:
                (folder / "out.png").symlink_to("/etc/passwd")
            elif act == 3:
                place = folder / rng.choice(_FOLDERS)
                place.mkdir()
                (place / "a.png").write_bytes(content)
            elif act == 4:
                Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(content)
            elif act == 5:
                (folder / "folder.png").mkdir()
            else:
                target.write_bytes(content)
