#!/usr/bin/env python3
"""Brings the database to the newest schema, and ends."""

import sqlite3
from contextlib import closing

from common import handed_config, say

MIGRATIONS = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, cents INTEGER NOT NULL)",
    "ALTER TABLE orders ADD COLUMN shipped INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX orders_to_ship ON orders (id) WHERE shipped = 0",
)


def migrate(database):
    """Applies what is missing; each step and its number are committed together."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    for number, statement in enumerate(MIGRATIONS[version:], start=version + 1):
        say(f"step {number}: {statement}")
        with database:
            database.execute("BEGIN")
            database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
    say(f"schema was at version {version}, is at {len(MIGRATIONS)}")


if __name__ == "__main__":
    with closing(sqlite3.connect(handed_config()["database"])) as connection:
        migrate(connection)
