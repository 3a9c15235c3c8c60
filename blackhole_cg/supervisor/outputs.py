"""One log pump per service: FIFO to file, console and followers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import BlackholeError
from blackhole_cg.observe.console import Console
from blackhole_cg.observe.log_file import LogFile
from blackhole_cg.observe.log_pump import LogHooks, LogPump, LogTrouble
from blackhole_cg.observe.log_spool import LogSpool
from blackhole_cg.runner.host import Host, Run
from blackhole_cg.supervisor.paths import Paths

_log = logging.getLogger(__name__)


class Outputs:
    """Opens and closes the pumps of all services.

    Args:
        host: makes the FIFOs.
        paths: where NAME.log and the spools are.
        console: shows every line too.
        report: told (service, text) when lines begin to be lost, and when none are any more.
    """

    def __init__(
        self, host: Host, paths: Paths, console: Console | None, report: Callable[[str, str], None]
    ) -> None:
        self.pumps: dict[str, LogPump] = {}
        self._host = host
        self._paths = paths
        self._spools: dict[str, LogSpool] = {}
        self._removed: list[str] = []
        self._console = console
        self._report = report

    def open(self, spec: ServiceSpec) -> LogPump:
        """The pump of a service, reading from now on. Raises KernelError where its FIFOs cannot be made."""
        show = partial(self._console.show, spec.name) if self._console else None
        log_file = LogFile(self._paths.log_dir / f"{spec.name}.log", spec.logs)
        pump = LogPump(
            spec.name,
            self._host.open_streams(spec),
            log_file,
            spool=self._open_spool(spec.name),
            hooks=LogHooks(lines=show, trouble=self._trouble),
        )
        self.pumps[spec.name] = pump
        try:
            pump.open()
        except OSError as error:  # a full disk must not keep services from being supervised
            _log.error("%s: cannot open %s: %s", spec.name, log_file.path, error.strerror)
        return pump

    def rejoin(self, spec: ServiceSpec, run: Run) -> None:
        """Where the FIFOs that a run has open have lost their names, read them by way of the run."""
        streams = self._host.lost_streams(spec, run.processes())
        if streams:
            _log.warning("%s: its FIFOs were deleted; they are read through process %d", spec.name, run.pid)
            self.pumps[spec.name].read_from(streams)

    def end_run(self, name: str) -> None:
        """Take what a run has left of which nothing lives, its unfinished last lines too."""
        self.pumps[name].end_run()

    def run_ids(self) -> dict[str, int]:
        """The newest run of each service that anything was read of, also where the state does not know it."""
        return {name: pump.run_id for name, pump in self.pumps.items()}

    def restore_spools(self) -> int:
        """Make again those that somebody has deleted; how many those were. Raises OSError."""
        count = 0
        for name, pump in self.pumps.items():
            if (lost := pump.lost_spool()) is None:
                continue
            lost.remove()  # of three files some may be left: the new ones begin empty
            spool = LogSpool(self._paths.spool_dir, name, self._host.facts.boot_id)
            try:
                pump.change_spool(spool)
            except OSError:
                spool.remove()
                spool.close()
                raise
            self._spools[name] = spool
            count += 1
        return count

    def open_removed(self) -> None:
        """Read on what services write that are not configured any more, and what they have left."""
        left = self._host.stream_names() | LogSpool.names(self._paths.spool_dir)
        for name in left - self.pumps.keys():
            try:
                self.open(ServiceSpec(name=name, argv=(), data_dir="/", environment={}))
                self._removed.append(name)
            except (BlackholeError, OSError) as error:
                _log.warning("%s: cannot read what it has left: %s", name, error)

    def discard_removed(self) -> None:
        """Close these again, once nothing of them runs any more, and remove their FIFOs and spools."""
        self.discard(self._removed)
        self._removed.clear()

    def discard(self, names: Iterable[str]) -> None:
        """Close the pumps of these services, which are down; of their files only the logs stay."""
        for name in names:
            if pump := self.pumps.pop(name, None):
                self._remove(name, pump)

    def remove(self) -> None:
        """Take in what is left, and remove the FIFOs and spools: the services are down."""
        for name, pump in self.pumps.items():
            self._remove(name, pump)

    def close(self) -> None:
        """Take in what is there; unfinished lines and what services write from now on wait."""
        for pump in self.pumps.values():
            pump.close()

    def _remove(self, name: str, pump: LogPump) -> None:
        pump.end_run()
        pump.close()
        self._host.remove_streams([name])
        if spool := self._spools.pop(name, None):
            spool.remove()

    def _open_spool(self, name: str) -> LogSpool | None:
        try:
            self._spools[name] = LogSpool(self._paths.spool_dir, name, self._host.facts.boot_id)
        except OSError as error:
            _log.warning("%s: a kill of the supervisor may lose log lines: %s", name, error.strerror)
        return self._spools.get(name)

    def _trouble(self, trouble: LogTrouble) -> None:
        if trouble.cause:
            text = f"log lines are being dropped: {trouble.cause}"
        else:
            text = f"log lines are stored again; {trouble.dropped_lines} were dropped"
        _log.warning("%s: %s", trouble.service, text, extra={"service": trouble.service})
        self._report(trouble.service, text)
