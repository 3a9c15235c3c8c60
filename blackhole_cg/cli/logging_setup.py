"""Where the supervisor's own log goes: to stderr, as lines for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from blackhole_cg.observe.console import Console

LogFormat = Literal["text", "json"]

_STDERR: Final = 2


def set_up_logging(
    level: str, log_format: LogFormat | None = None, descriptor: int = _STDERR
) -> logging.Handler:
    """Log from `level` on to a descriptor; close the handler at the end of the event loop.

    Without a format it is text on a terminal and JSON elsewhere. What the reader does not take is dropped and
    counted: a terminal stopped with Ctrl-S must not stop the supervisor.
    """
    from blackhole_cg.observe.console import Console

    if log_format is None:
        log_format = "text" if _is_terminal(descriptor) else "json"
    handler = _ConsoleHandler(Console(descriptor))
    handler.setFormatter(_json_formatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # They are looked up for every record, and never shown.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return handler


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


class _ConsoleHandler(logging.Handler):
    """Hands records to a console, which never waits."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._console.note(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._console.close()
        super().close()


class TextFormatter(logging.Formatter):
    """One line for each record: the time of day, the level if it is worth a word, the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; more lines of a message, and a traceback, follow indented."""
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{when} {level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text.replace("\n", "\n  ")


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
