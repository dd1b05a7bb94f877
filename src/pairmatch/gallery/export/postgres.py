"""PostgreSQL with pgvector as a target of exports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final
from urllib.parse import quote, urlencode

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, StoreError, missing_extra
from pairmatch.core.text import printable
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.export.target import Contents, ExportTarget, batches, merged_kinds
from pairmatch.gallery.request import SearchRequest
from pairmatch.rules import Kind, person_columns
from pairmatch.rules.postgres import to_postgres

if TYPE_CHECKING:
    from psycopg import sql

_TYPES: dict[Kind, str] = {
    "number": "double precision",
    "text": 'text COLLATE "C"',
    "bool": "boolean",
}
_RESERVED = {"id", "embedding", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
_PREFIX = "attribute_"
_MOST_NAME_BYTES = 63
_MOST_INDEXED = 2000  # width of vectors that pgvector indexes


@final
class PostgresTarget(ExportTarget):
    """A table with the columns `id`, `embedding` (`vector`) and one per attribute.

    Columns that pairmatch did not create are kept. Passwords come from `PGPASSWORD`, `~/.pgpass` or
    a service file, as for every client of PostgreSQL.

    Args:
        conninfo: URI or connection string of libpq, without a password.
        table: Name of the table, perhaps with its schema: `app.people`.

    Raises:
        MissingExtraError: psycopg or pgvector is not installed.
        ConfigurationError: The connection string is malformed or holds a password.
        StoreError: The server cannot be reached, or has no pgvector.
    """

    def __init__(self, conninfo: str, table: str = "people") -> None:
        try:
            import psycopg
            from pgvector.psycopg import register_vector
        except ImportError as error:
            raise missing_extra("PostgresTarget", "psycopg and pgvector", "postgres") from error
        _check_conninfo(conninfo)
        self._names = tuple(table.split("."))
        if not all(self._names) or len(self._names) > 2:
            raise ConfigurationError(f"The table must be TABLE or SCHEMA.TABLE, got {table!r}.")
        with _errors("PostgreSQL"):
            self._connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=10)
        super().__init__(_address(self._connection.info, table))
        try:
            with _errors(self.address):
                _check_server(self._connection, self.address)
                register_vector(self._connection)
        except BaseException:
            self._connection.close()
            raise

    @property
    def contents(self) -> Contents | None:
        with _errors(self.address):
            row = self._connection.execute(
                "SELECT obj_description(found, 'pg_class') FROM to_regclass(%s) AS found "
                "WHERE found IS NOT NULL",
                (".".join(_quoted(name) for name in self._names),),
            ).fetchone()
        return None if row is None else Contents.from_json(row[0], self.address)

    def prepare(self, contents: Contents) -> None:
        from psycopg import sql

        existing = self.contents
        known = {} if existing is None else existing.kinds
        if existing is not None:
            existing.check_same(contents, self.address)
        kinds = merged_kinds(known, contents.kinds, self.address)
        columns = _columns(kinds)
        with _errors(self.address), self._connection.transaction():
            if existing is None:
                self._connection.execute(
                    sql.SQL('CREATE TABLE {} (id text COLLATE "C" PRIMARY KEY, ').format(
                        self._table
                    )
                    + sql.SQL("embedding vector({}) NOT NULL)").format(sql.Literal(contents.width))
                )
            for name, kind in kinds.items():
                if name not in known:
                    self._connection.execute(
                        sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                            self._table, sql.Identifier(columns[name]), sql.SQL(_TYPES[kind])
                        )
                    )
            made_by = contents.made_by if existing is None else existing.made_by or contents.made_by
            about = Contents(contents.width, contents.side, made_by, kinds)
            self._connection.execute(
                sql.SQL("COMMENT ON TABLE {} IS {}").format(
                    self._table, sql.Literal(about.to_json())
                )
            )

    def upsert(self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors) -> int:
        from psycopg import sql

        kinds = self._existing().kinds
        names = list(kinds)
        columns = ["id", "embedding", *_columns(kinds).values()]
        types = {"number": "float8", "text": "text", "bool": "bool"}
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        new = sql.SQL(", ").join(sql.Identifier("excluded", name) for name in columns[1:])
        old = sql.SQL(", ").join(sql.Identifier("old", name) for name in columns[1:])
        with _errors(self.address), self._connection.transaction():
            self._connection.execute(
                sql.SQL(
                    "CREATE TEMP TABLE incoming ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0"
                ).format(listed, self._table)
            )
            with self._connection.cursor().copy(
                sql.SQL("COPY incoming ({}) FROM STDIN WITH (FORMAT BINARY)").format(listed)
            ) as copy:
                copy.set_types(["text", "vector", *(types[kind] for kind in kinds.values())])
                for person, row, vector in zip(ids, attributes, vectors, strict=True):
                    values = [_value(row.get(name), kinds[name]) for name in names]
                    copy.write_row([person, vector, *values])
            count = self._connection.execute(
                sql.SQL(
                    "INSERT INTO {} AS old ({}) SELECT {} FROM incoming ON CONFLICT (id) DO UPDATE "
                    "SET ({}) = ROW({}) WHERE ({}) IS DISTINCT FROM ({})"
                ).format(
                    self._table,
                    listed,
                    listed,
                    sql.SQL(", ").join(map(sql.Identifier, columns[1:])),
                    new,
                    sql.SQL("ROW({})").format(old),
                    sql.SQL("ROW({})").format(new),
                )
            ).rowcount
        return int(count)

    def delete(self, ids: Sequence[str]) -> int:
        from psycopg import sql

        query = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table)
        with _errors(self.address), self._connection.transaction():
            return sum(self._connection.execute(query, (part,)).rowcount for part in batches(ids))

    def forget(self, ids: Sequence[str]) -> int:
        from psycopg import sql

        count = self.delete(ids)
        with _errors(self.address):
            self._connection.execute(sql.SQL("VACUUM {}").format(self._table))
        return count

    def known(self, ids: Collection[str]) -> set[str]:
        from psycopg import sql

        query = sql.SQL("SELECT id FROM {} WHERE id = ANY(%s)").format(self._table)
        with _errors(self.address):
            return {
                row[0]
                for part in batches(_without_nul(ids))
                for row in self._connection.execute(query, (part,)).fetchall()
            }

    def ids(self) -> Iterator[list[str]]:
        from psycopg import sql

        with _errors(self.address):
            query = sql.SQL("SELECT id FROM {}").format(self._table)
            rows = self._connection.execute(query).fetchall()
        yield from batches(row[0] for row in rows)

    def build_index(self) -> None:
        from psycopg import sql

        width = self._existing().width
        if width > _MOST_INDEXED:
            raise ConfigurationError(
                f"pgvector indexes vectors up to a width of {_MOST_INDEXED:,}, these have "
                f"{width:,}: search without an index, or embed with a narrower head."
            )
        name = f"{self._names[-1]}_embedding"[:_MOST_NAME_BYTES]
        with _errors(self.address):
            self._connection.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw ").format(
                    sql.Identifier(name), self._table
                )
                + sql.SQL("(embedding vector_ip_ops)")
            )

    def _filter(self, request: SearchRequest, contents: Contents, person: Attributes) -> str | None:
        if request.rule is None:
            return None
        columns = _columns(contents.kinds)
        return " AND ".join(
            to_postgres(
                request.rule, columns, contents.kinds, person_columns(person), swapped=swapped
            )
            for swapped in ([False, True] if request.mutual else [False])
        )

    def _nearest(
        self, query: Vectors, k: int, condition: Any, exact: bool
    ) -> list[tuple[str, float]]:
        from psycopg import sql

        where = sql.SQL("TRUE" if condition is None else condition.replace("%", "%%"))
        statement = sql.SQL(
            "SELECT id, -(embedding <#> %s) FROM {} WHERE {} ORDER BY embedding <#> %s LIMIT %s"
        ).format(self._table, where)
        with _errors(self.address), self._connection.transaction():
            if exact:
                self._connection.execute("SET LOCAL enable_indexscan = off")
            rows = self._connection.execute(statement, (query, query, k)).fetchall()
        return [(person, float(score)) for person, score in rows]

    @property
    def _table(self) -> sql.Identifier:
        from psycopg import sql

        return sql.Identifier(*self._names)

    def close(self) -> None:
        self._connection.close()


def _check_conninfo(conninfo: str) -> None:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        raise ConfigurationError(
            "The address of PostgreSQL is malformed: write postgresql://user@host:port/database."
        ) from None
    secrets = [name for name in ("password", "sslpassword") if given.get(name)]
    if secrets:
        raise ConfigurationError(
            f"The address of PostgreSQL holds a secret ({', '.join(secrets)}): leave it out, and "
            "set PGPASSWORD or use ~/.pgpass."
        )


def _address(info: Any, table: str) -> str:
    """Address of a connection, complete and without secrets."""
    where = {"host": info.host, "port": str(info.port)}
    where |= {
        name: value
        for name, value in info.get_parameters().items()
        if name.startswith("ssl") and name != "sslpassword"
    }
    user = quote(info.user, safe="")
    return f"postgresql://{user}@/{quote(info.dbname, safe='')}?{urlencode(where)}#{table}"


def _check_server(connection: Any, address: str) -> None:
    """Raises StoreError unless the database holds Unicode and has pgvector."""
    encoding = connection.execute("SHOW server_encoding").fetchone()[0]
    if encoding != "UTF8":
        raise StoreError(
            f"{address}: the database has the encoding {encoding}, and UTF8 is needed."
        )
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
        return
    if not connection.execute(
        "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone():
        raise StoreError(f"{address}: the server has no pgvector: install it there.")
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


def _columns(kinds: Collection[str]) -> dict[str, str]:
    """Column of each attribute.

    Raises:
        ConfigurationError: Names that PostgreSQL cannot hold.
    """
    columns = {
        name: f"{_PREFIX}{name}" if name in _RESERVED or name.startswith(_PREFIX) else name
        for name in kinds
    }
    bad = [
        printable(name)
        for name, column in columns.items()
        if not 0 < len(column.encode()) <= _MOST_NAME_BYTES or "\0" in column
    ]
    if bad:
        raise ConfigurationError(
            f"Names of columns in PostgreSQL have 1 to {_MOST_NAME_BYTES} bytes: rename the "
            f"attributes {', '.join(bad)}."
        )
    return columns


def _value(value: Any, kind: Kind) -> Any:
    return float(value) if kind == "number" and value is not None else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _without_nul(ids: Collection[str]) -> list[str]:
    return [person for person in ids if "\0" not in person]


@contextmanager
def _errors(place: str) -> Iterator[None]:
    """Errors of psycopg become those of pairmatch."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        words = " ".join(str(error).split())
        raise StoreError(f"{place} cannot be used: {words[:500]}") from error
