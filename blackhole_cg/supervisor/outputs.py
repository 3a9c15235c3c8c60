"""One log pump per service: FIFO to file, console and followers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.observe.console import Console
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_pump import LogHooks, LogPump, LogTrouble
from blackhole_cg.runner.host import Host

_log = logging.getLogger(__name__)


class Outputs:
    """Opens and closes the pumps of all services.

    Args:
        host: makes the FIFOs.
        log_dir: where NAME.log is written.
        console: shows every line too.
        report: told (service, text) when lines begin to be lost, and when none are any more.
    """

    def __init__(
        self, host: Host, log_dir: Path, console: Console | None, report: Callable[[str, str], None]
    ) -> None:
        self.pumps: dict[str, LogPump] = {}
        self._host = host
        self._log_dir = log_dir
        self._console = console
        self._report = report

    def open(self, spec: ServiceSpec) -> LogPump:
        """The pump of a service, reading from now on. Raises KernelError where its FIFOs cannot be made."""
        show = partial(self._console.show, spec.name) if self._console else None
        log_file = LogFile(self._log_dir / f"{spec.name}.log", spec.logs)
        pump = LogPump(
            spec.name,
            self._host.open_streams(spec),
            log_file,
            hooks=LogHooks(lines=show, trouble=self._trouble),
        )
        self.pumps[spec.name] = pump
        try:
            pump.open()
        except OSError as error:  # a full disk must not keep services from being supervised
            _log.error("%s: cannot open %s: %s", spec.name, log_file.path, error.strerror)
        return pump

    def discard(self, names: Iterable[str]) -> None:
        """Close the pumps of these services, which are down, and remove their FIFOs; log files stay."""
        for name in names:
            if pump := self.pumps.pop(name, None):
                pump.close()
                self._host.remove_streams([name])

    def remove(self) -> None:
        """Take in what is left, and remove the FIFOs: the services are down."""
        self.close()
        self._host.remove_streams(self.pumps)

    def close(self) -> None:
        """Take in what is there; what services write from now on waits in the FIFOs."""
        for pump in self.pumps.values():
            pump.close()

    def _trouble(self, trouble: LogTrouble) -> None:
        if trouble.cause:
            text = f"log lines are being dropped: {trouble.cause}"
        else:
            text = f"log lines are stored again; {trouble.dropped_lines} were dropped"
        _log.warning("%s: %s", trouble.service, text, extra={"service": trouble.service})
        self._report(trouble.service, text)
