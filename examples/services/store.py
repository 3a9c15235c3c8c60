#!/usr/bin/env python3
"""Keeps the orders: SQLite behind HTTP."""

import sqlite3

from common import JsonHandler, handed_config, say, serve

KEPT_ORDERS = 1000


class Store(JsonHandler):
    """POST /orders, POST /ship, GET /totals."""

    database = None

    def answer(self, method, path, body):
        route = {
            ("POST", "/orders"): self.add,
            ("POST", "/ship"): self.ship,
            ("GET", "/totals"): self.totals,
        }.get((method, path))
        return route(body) if route else (404, {"error": f"no such thing: {method} {path}"})

    def add(self, order):
        """Stores an order; forgets the oldest, so that the example can run for weeks."""
        with self.database as db:
            row = db.execute(
                "INSERT INTO orders (item, cents) VALUES (?, ?)", (order["item"], order["cents"])
            )
            db.execute("DELETE FROM orders WHERE id <= ?", (row.lastrowid - KEPT_ORDERS,))
        say(f"order {row.lastrowid}: {order['item']} for {order['cents']} cents")
        return 201, {"id": row.lastrowid}

    def ship(self, _):
        """Marks the oldest order that waits as shipped."""
        with self.database as db:
            waiting = db.execute(
                "SELECT id, item FROM orders WHERE shipped = 0 ORDER BY id LIMIT 1"
            ).fetchone()
            if waiting is None:
                return 200, {"shipped": None}
            db.execute("UPDATE orders SET shipped = 1 WHERE id = ?", waiting[:1])
        return 200, {"shipped": waiting[0], "item": waiting[1]}

    def totals(self, _):
        """How many orders there are, how many wait, and what they are worth."""
        count, waiting, cents = self.database.execute(
            "SELECT count(*), coalesce(sum(shipped = 0), 0), coalesce(sum(cents), 0) FROM orders"
        ).fetchone()
        return 200, {"orders": count, "waiting": waiting, "cents": cents}


if __name__ == "__main__":
    Store.database = sqlite3.connect(handed_config()["database"])
    serve(Store)
    Store.database.close()
