"""A module that answers questions with its pid and what it was asked; when told to, it dies or is silent."""

from __future__ import annotations

import os
import signal

from blackhole_cg.kernel.resident import answer_all


def reply(asked: object) -> tuple[int, object]:
    if asked == "die":
        os._exit(3)
    if asked == "hang":
        signal.pause()
    return os.getpid(), asked


if __name__ == "__main__":
    answer_all(reply)
