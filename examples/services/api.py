#!/usr/bin/env python3
"""What customers talk to: checks and prices an order, and passes it on to the store."""

import os

from common import JsonHandler, Refused, call, complain, handed_config, serve


class Api(JsonHandler):
    """POST /orders {"item": "pear"}, POST /ship, GET /totals."""

    store_url = os.environ["STORE_URL"]
    prices_cents = handed_config()["prices_cents"]

    def answer(self, method, path, body):
        if (method, path) == ("POST", "/orders"):
            item = body["item"]
            if item not in self.prices_cents:
                complain(f"refused an order for {item!r}: not sold here")
                return 422, {"error": f"not sold here: {item}", "sold": sorted(self.prices_cents)}
            body = {"item": item, "cents": self.prices_cents[item]}
        try:
            return 200, call(method, self.store_url + path, body)
        except Refused as refused:
            return refused.status, refused.answer
        except OSError as error:
            complain(f"the store does not answer: {error}")
            return 502, {"error": "the store does not answer, try again"}


if __name__ == "__main__":
    serve(Api)
