#!/usr/bin/env python3
"""Crashes 20 to 60 seconds after it was started, in one of several ways."""

import os
import random
import signal
import sys

from common import complain, say, stop_asked


def crash():
    """Ends this process as real programs do: with an error, or with a signal nobody meant to send."""
    if random.random() < 0.3:
        complain("following a pointer to nowhere")
        os.kill(os.getpid(), signal.SIGSEGV)
    code = random.choice((1, 2, 70))
    complain(f"unrecoverable: giving up with exit code {code}")
    sys.exit(code)


def main():
    """Works for a while, then crashes, unless it is asked to stop before."""
    seconds = random.randint(20, 60)
    say(f"started as pid {os.getpid()}; all is well, for now")
    for elapsed in range(seconds):
        if stop_asked(wait_seconds=1.0):
            say("asked to stop before anything went wrong, bye")
            return
        if elapsed % 10 == 9:
            say(f"still fine after {elapsed + 1} s")
    crash()


if __name__ == "__main__":
    main()
