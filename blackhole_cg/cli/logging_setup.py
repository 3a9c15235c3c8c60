"""Where the supervisor's own log goes: to stderr, as lines for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

LogFormat = Literal["text", "json"]

_LEVEL_COLOURS: Final = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}


def set_up_logging(level: str, log_format: LogFormat | None = None, stream: TextIO | None = None) -> None:
    """Log from `level` on to a stream, stderr by default; None as the format asks what the stream is."""
    from blackhole_cg.cli.terminal import screen_of

    stream = sys.stderr if stream is None else stream
    if log_format is None:
        log_format = "text" if stream.isatty() else "json"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _json_formatter() if log_format == "json" else TextFormatter(screen_of(stream).colour)
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Which logger, thread and process a record came from is asked of the system for every record, and never shown.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class TextFormatter(logging.Formatter):
    """One line for each record: the time of day, the level if it is worth a word, the message."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; a traceback follows on lines of its own."""
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        colour = _LEVEL_COLOURS.get(record.levelno) if self._colour else None
        if colour:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        message = record.getMessage().replace("\n", "\n  ")
        text = f"{when} {level}{message}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """One JSON object for each record, with the time in the form of every other time we show."""

        def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
            moment = datetime.fromtimestamp(record.created, UTC)
            return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            log_data["level"] = log_data["level"].lower()
            return log_data

    return Formatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )
