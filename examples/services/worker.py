#!/usr/bin/env python3
"""Customers and the shipping department: orders something, ships something, again and again."""

import argparse
import os
import random

from common import Refused, call, complain, say, stop_asked

WISHES = ("apple", "apple", "pear", "pear", "plum", "durian")  # durians are not sold here


def order_and_ship(api_url):
    """One round; an API that is away is a reason to try again later, not to end."""
    wish = random.choice(WISHES)
    try:
        ordered = call("POST", f"{api_url}/orders", {"item": wish})
        say(f"ordered {wish}: number {ordered['id']}")
    except (OSError, Refused) as error:
        complain(f"could not order {wish}: {error}")
    if random.random() < 0.7:
        try:
            shipped = call("POST", f"{api_url}/ship")
            if shipped["shipped"]:
                say(f"shipped number {shipped['shipped']}: {shipped['item']}")
        except (OSError, Refused) as error:
            complain(f"could not ship: {error}")


def main():
    """Works until asked to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pause-seconds", type=float, default=1.0)
    pause_seconds = parser.parse_args().pause_seconds
    while not stop_asked(wait_seconds=pause_seconds):
        order_and_ship(os.environ["API_URL"])
    say("asked to stop: nothing left half done, bye")


if __name__ == "__main__":
    main()
