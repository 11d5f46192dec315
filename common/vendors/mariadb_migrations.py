"""Migrations on MariaDB, where no transaction undoes the half of one: each change can be done again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

from tortoise.migrations import executor
from tortoise.migrations.schema_editor import MySQLSchemaEditor

from common.telemetry import log
from common.vendors.mariadb import COLLATION, Unit, seconds_on_the_server

#: What a migration does with a large table takes its time.
_SECONDS_PER_CHANGE = 3600


@contextlib.asynccontextmanager
async def migrating(unit: Unit) -> AsyncIterator[None]:
    """Wait until no other replica migrates, and be the one that does. What a migration has done stays done.

    The lock is the session's, since changes of tables end every transaction; and it is the server's, so it bears
    the name of the database.
    """
    patience, unit.patience = unit.patience, _SECONDS_PER_CHANGE
    await unit.execute_script("SET SESSION max_statement_time = 0")
    name = "CONCAT('saga migrations ', MD5(DATABASE()))"
    while (await unit.execute_query_dict(f"SELECT GET_LOCK({name}, 10) AS ours"))[0]["ours"] != 1:
        log.info("another replica migrates; waiting for it")
    try:
        yield
    except BaseException:
        log.warning("a migration was cut short; what it did stays, and the next start does the rest")
        # Its lock goes with it.
        unit.throw_away()
        raise
    await unit.execute_query_dict(f"SELECT RELEASE_LOCK({name})")
    await unit.execute_script(f"SET SESSION max_statement_time = {seconds_on_the_server(patience)}")


class Executor(executor.MigrationExecutor):
    """Tortoise's, writing tables as MariaDB needs them."""

    def _schema_editor(self, atomic: bool = True, collect_sql: bool = False) -> MySQLSchemaEditor:
        return _SchemaEditor(self.connection, atomic=atomic, collect_sql=collect_sql)


class _SchemaEditor(MySQLSchemaEditor):
    """Changes tables so that it can be done again: no transaction undoes the half of a migration."""

    def _table_generate_extra(self, table: str) -> str:  # noqa: ARG002 - as in Tortoise
        return f" ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {COLLATION}"

    async def _run_sql(self, sql: str) -> None:
        await super()._run_sql(repeatable(sql))


def repeatable(sql: str) -> str:
    """The same change of a table, but one that is content if it is done already."""
    for change, again in _AGAIN:
        sql = change.sub(again, sql, count=1)
    return sql


_AGAIN = tuple(
    (re.compile(rf"(^|^ALTER TABLE \S+ )({change}) (?!IF )"), rf"\1\2 IF {condition} ")
    for condition, change in (
        ("NOT EXISTS", "CREATE TABLE|CREATE (?:UNIQUE )?INDEX|ADD COLUMN|ADD (?:UNIQUE )?KEY"),
        ("EXISTS", "DROP TABLE|DROP INDEX|DROP COLUMN|DROP CONSTRAINT|RENAME TABLE|RENAME COLUMN"),
    )
)
