"""The supervisor's own log."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
from collections.abc import Iterator

import pytest

from blackhole_cg.cli.logging_setup import LogFormat, set_up_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is of the whole process; other tests want it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags


def written(level: str, log_format: LogFormat | None, *, terminal: bool = False) -> str:
    """What a few records look like."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    handler = set_up_logging(level, log_format, theirs)
    logger = logging.getLogger("blackhole_cg.test")
    logger.debug("too much")
    logger.info("web: running -> %s", "failed", extra={"service": "web"})
    try:
        raise ValueError("inner")
    except ValueError:
        logger.exception("it broke\nhere")
    handler.close()
    output = os.read(ours, 1 << 20).decode()
    os.close(theirs)
    os.close(ours)
    return output.replace("\r\n", "\n")


def test_text_is_for_people() -> None:
    lines = written("info", "text").splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d web: running -> failed", lines[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d error: it broke", lines[1])
    assert lines[2] == "  here"
    assert lines[-1] == "  ValueError: inner"


def test_json_has_one_object_on_a_line() -> None:
    first, second = map(json.loads, written("info", "json").splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first.pop("time"))
    assert first == {
        "level": "info",
        "logger": "blackhole_cg.test",
        "message": "web: running -> failed",
        "service": "web",
    }
    assert second["message"] == "it broke\nhere"
    assert "ValueError: inner" in second["exc_info"]


def test_the_format_is_chosen_by_where_it_goes() -> None:
    assert written("info", None).startswith("{")
    assert re.match(r"\d\d:\d\d:\d\d ", written("info", None, terminal=True))


def test_the_level_holds() -> None:
    assert "too much" not in written("info", "text")
    assert "too much" in written("debug", "text")
    assert "running" not in written("error", "text")


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    ours, theirs = os.pipe()
    handler = set_up_logging("info", "text", theirs)
    for _ in range(5000):
        logging.getLogger("blackhole_cg.test").info("x" * 1000)  # far more than a pipe holds
    handler.close()
    os.close(theirs)
    with os.fdopen(ours, "rb") as reader:
        taken = reader.read()
    assert b"x" * 1000 in taken
    assert len(taken) < 5000 * 1000, "what did not fit was dropped, not waited for"
