#!/usr/bin/env python3
"""Says now and then how the shop is doing."""

import argparse
import os

from common import Refused, call, complain, say, stop_asked


def report(api_url):
    """One line about the totals, or about why there are none."""
    try:
        totals = call("GET", f"{api_url}/totals")
    except (OSError, Refused) as error:
        complain(f"no figures: {error}")
        return
    say(f"{totals['orders']} orders worth {totals['cents'] / 100:.2f}, {totals['waiting']} to be shipped")


def main():
    """Reports until asked to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every-seconds", type=float, default=10.0)
    every_seconds = parser.parse_args().every_seconds
    while not stop_asked(wait_seconds=every_seconds):
        report(os.environ["API_URL"])
    say("asked to stop, bye")


if __name__ == "__main__":
    main()
