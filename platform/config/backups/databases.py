"""Copy the database at one moment, and fill an empty one from the copy.

SQLite copies its file. PostgreSQL copies each table with COPY, in one transaction, and
the tables are made by migrations. So it needs no pg_dump, which must be at least as new
as the server, and a copy fits an older or newer server, too.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder

from config.backups.archive import Head, Refused
from config.processes import schema

# Files beside a database of SQLite.
_OF_ITS_WRITERS = ("-wal", "-shm", "-journal")
_PIECE_BYTES = 1024**2

Copy = Iterator[tuple[str, Iterator[bytes]]]


class Database(Protocol):
    """One kind of database."""

    def moment(self) -> contextlib.AbstractContextManager[None]:
        """Let all reads see the database as it is now."""

    def sequences(self) -> dict[str, int]:
        """Return the last number of each column that counts."""

    def copy(self, beside: Path) -> Copy:
        """Yield names and contents; `beside` may be used for a file."""

    def check_empty(self) -> None:
        """Raise Refused if the database holds anything."""

    def filling(
        self, head: Head
    ) -> contextlib.AbstractContextManager[Callable[[str, IO[bytes]], None]]:
        """Give a function that takes the copy's members in order."""


def of_this_installation() -> Database:
    kinds: dict[str, Database] = {"postgresql": Postgresql(), "sqlite": Sqlite()}
    return kinds[connection.vendor]


def migrations() -> list[tuple[str, str]]:
    """Return the migrations that the database has, in the order of their names."""
    return sorted(MigrationRecorder(connection).applied_migrations())


class Sqlite:
    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        with connection.cursor() as cursor:
            # Django's own transactions wait for writers, and make them wait.
            cursor.execute("BEGIN DEFERRED")
            try:
                # It begins with the first read.
                cursor.execute("SELECT count(*) FROM django_migrations")
                cursor.fetchall()
                yield
            finally:
                cursor.execute("ROLLBACK")

    def sequences(self) -> dict[str, int]:
        return {}

    def copy(self, beside: Path) -> Copy:
        beside.unlink(missing_ok=True)
        try:
            beside.touch(mode=0o600)
            with contextlib.closing(sqlite3.connect(beside)) as target:
                # In one step, within the transaction that `moment` began.
                connection.connection.backup(target)
            yield "sqlite", _pieces(beside)
        except sqlite3.OperationalError as error:
            raise Refused(f"The database cannot be copied: {error}.") from error
        finally:
            beside.unlink(missing_ok=True)

    def check_empty(self) -> None:
        path = Path(connection.settings_dict["NAME"])
        if path.exists() and path.stat().st_size:
            raise Refused(f"There is a database already: {path}")

    @contextlib.contextmanager
    def filling(self, head: Head) -> Iterator[Callable[[str, IO[bytes]], None]]:
        path = Path(connection.settings_dict["NAME"])
        partial = path.with_name(f"{path.name}.partial")
        connection.close()
        try:
            partial.touch(mode=0o600)
            with partial.open("wb") as file:

                def fill(name: str, content: IO[bytes]) -> None:
                    while piece := content.read(_PIECE_BYTES):
                        file.write(piece)

                yield fill
                file.flush()
                os.fsync(file.fileno())
            for suffix in _OF_ITS_WRITERS:
                # SQLite would write them into the restored file. They are of one that
                # is gone, whose process did not end well.
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


class Postgresql:
    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    def sequences(self) -> dict[str, int]:
        return {
            f"{table}.{column}": last
            for table, column, sequence in _sequences()
            if (last := _last_of(sequence)) is not None
        }

    def copy(self, beside: Path) -> Copy:
        for table in connection.introspection.table_names():
            yield table, self._rows(table)

    def check_empty(self) -> None:
        tables = connection.introspection.table_names()
        if tables:
            raise Refused(
                f"The database {connection.settings_dict['NAME']} has tables already "
                f"({len(tables)}). Restore into an empty one."
            )

    @contextlib.contextmanager
    def filling(self, head: Head) -> Iterator[Callable[[str, IO[bytes]], None]]:
        schema.migrate_to(head.migrations)
        tables = connection.introspection.table_names()
        with transaction.atomic(), connection.cursor() as cursor:
            names = ", ".join(map(connection.ops.quote_name, tables))
            # Rows that migrations made are in the copy, too.
            cursor.execute(f"TRUNCATE {names}")
            copying = _Copying(cursor, tables)
            yield copying.take
            copying.end()
            for table, column, sequence in _sequences():
                if (last := head.sequences.get(f"{table}.{column}")) is not None:
                    cursor.execute("SELECT setval(%s, %s)", [sequence, last])

    def _rows(self, table: str) -> Iterator[bytes]:
        with connection.cursor() as cursor:
            columns = [
                column.name
                for column in connection.introspection.get_table_description(
                    cursor, table
                )
            ]
            # The columns' order may differ in the other database.
            yield (",".join(columns) + "\n").encode()
            quoted = ", ".join(map(connection.ops.quote_name, columns))
            name = connection.ops.quote_name(table)
            with cursor.copy(f"COPY {name} ({quoted}) TO STDOUT") as rows:
                yield from map(bytes, rows)


class _Copying:
    """Pass the pieces of each table to one COPY."""

    def __init__(self, cursor: Any, tables: list[str]) -> None:
        self._cursor = cursor
        self._tables = tables
        self._table = ""
        self._stack = contextlib.ExitStack()
        self._copy: Any = None

    def take(self, name: str, content: IO[bytes]) -> None:
        table = name.rpartition("/")[0]
        data = content.read()
        if table != self._table:
            self.end()
            if table not in self._tables:
                raise Refused(f"The backup holds a table that is not known: {table}")
            head, _, data = data.partition(b"\n")
            quote = connection.ops.quote_name
            columns = ", ".join(map(quote, head.decode().split(",")))
            statement = f"COPY {quote(table)} ({columns}) FROM STDIN"
            self._copy = self._stack.enter_context(self._cursor.copy(statement))
            self._table = table
        self._copy.write(data)

    def end(self) -> None:
        self._table = ""
        self._stack.close()


def _sequences() -> list[tuple[str, str, str]]:
    """Return table, column and quoted name of each sequence."""
    found = connection.introspection
    with connection.cursor() as cursor:
        return [
            (table, each["column"], connection.ops.quote_name(each["name"]))
            for table in found.table_names(cursor)
            for each in found.get_sequences(cursor, table)
        ]


def _last_of(sequence: str) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT last_value, is_called FROM {sequence}")
        last, called = cursor.fetchone()
    return int(last) if called else None


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
