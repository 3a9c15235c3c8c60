"""What probes cost: many services asked at once, by the schedule and the questions of the supervisor itself.

    python -m benchmarks.probes [--write]

Each kind of probe asks one server, in a process of its own, on behalf of many services. Measured is the
processor time of the asking process. Commands are run as a supervisor would run them, so they need root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.procfs import read_cpu
from benchmarks.report import describe_machine, render_table, write_page
from blackhole_cg.core.probe_spec import (
    Address,
    Answer,
    ExecTarget,
    GrpcTarget,
    HttpTarget,
    ProbeSpec,
    ProbesSpec,
    Target,
    TcpTarget,
)
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.observe.probes.ask import Asker
from blackhole_cg.observe.probes.exec import CommandRunner
from blackhole_cg.observe.probes.schedule import Outcome, Prober

PERIOD_SECONDS = 5.0
WARM_UP_SECONDS = PERIOD_SECONDS + 1.0
SERVICES = 1000
GRPC_SERVICES = 200  # more than that is too much for a server in Python on the other core
COMMANDS = 50
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVING = b"\x08\x01"


@dataclass(frozen=True)
class Figures:
    """Of one kind of probe."""

    name: str
    services: int
    cpu_percent: float  # of one core
    cpu_ms: float  # of one question
    latency_ms: float  # median
    failures: int


class SystemClock:
    """As the supervisor's."""

    now = staticmethod(time.monotonic)
    jitter = staticmethod(lambda: random.uniform(-1.0, 1.0))

    @staticmethod
    def wall() -> datetime:
        """For display."""
        return datetime.now(UTC)


class PlainBytes:
    """A codec of grpclib: messages are the bytes they are sent as."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


class HealthService:
    """Serves, whatever it is asked about."""

    def __mapping__(self) -> dict[str, Any]:
        from grpclib.const import Cardinality, Handler

        handler = Handler(self.check, Cardinality.UNARY_UNARY, bytes, bytes)
        return {"/grpc.health.v1.Health/Check": handler}

    async def check(self, stream: Any) -> None:
        """The one method."""
        await stream.recv_message()
        await stream.send_message(SERVING)


async def answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """200 for every request; nothing for a connection without one."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(BODY)
    writer.close()


async def serve(kind: str, place: str) -> None:
    """Until killed."""
    if kind == "grpc":
        from grpclib.server import Server

        codec: Any = PlainBytes()
        await Server([HealthService()], codec=codec).start("127.0.0.1", int(place))
    elif place.startswith("/"):
        await asyncio.start_unix_server(answer_http, place, backlog=1000)
    else:
        await asyncio.start_server(answer_http, "127.0.0.1", int(place), backlog=1000)
    print("ready", flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def server(kind: str, place: str) -> Iterator[None]:
    """One in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.probes", "--serve", kind, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


async def measure(
    name: str, target: Target, services: int, seconds: float, commands: CommandRunner | None = None
) -> Figures:
    """Let that many services be asked for a while."""
    answers: list[Answer] = []
    spec = ServiceSpec("bench", ("true",), tempfile.gettempdir(), {"PATH": os.defpath})
    asker: Callable[[Target, float], Awaitable[Answer]] = Asker(spec, commands)  # type: ignore[arg-type]

    async def ask(asked: Target, timeout_seconds: float) -> Answer:
        answer = await asker(asked, timeout_seconds)
        answers.append(answer)
        return answer

    probe = ProbeSpec(target, period_seconds=PERIOD_SECONDS, timeout_seconds=3.0)
    outcome = Outcome(lambda health, message: None, lambda died: None)
    probers = [
        Prober(f"s{number}", ProbesSpec(readiness=probe), ask, SystemClock(), outcome)
        for number in range(services)
    ]
    for prober in probers:
        prober.start(has_started=True)
    await asyncio.sleep(WARM_UP_SECONDS)
    answers.clear()
    before, began = read_cpu(os.getpid()), time.monotonic()
    await asyncio.sleep(seconds)
    cpu, took = read_cpu(os.getpid()) - before, time.monotonic() - began
    for prober in probers:
        prober.close()
    await asyncio.sleep(0.5)
    return Figures(
        name,
        services,
        100 * cpu.total / took,
        1000 * cpu.total / len(answers),
        1000 * median(answer.latency_seconds for answer in answers),
        sum(not answer.ok for answer in answers),
    )


def measure_network(seconds: float) -> Iterator[Figures]:
    """The kinds that go over a socket."""
    with tempfile.TemporaryDirectory() as directory:
        path, port = f"{directory}/s", 20000 + os.getpid() % 10000
        here, there = Address(port=port), Address(unix_socket=path)
        for name, kind, place, target, count in (
            ("tcp", "http", str(port), TcpTarget(here), SERVICES),
            ("http", "http", str(port), HttpTarget(here), SERVICES),
            ("http, unix socket", "http", path, HttpTarget(there), SERVICES),
            ("grpc", "grpc", str(port), GrpcTarget(here), GRPC_SERVICES),
        ):
            with server(kind, place):
                yield asyncio.run(measure(name, target, count, seconds))


def measure_commands(seconds: float) -> Iterator[Figures]:
    """Those that are forked, if that can be done here."""
    if os.geteuid() != 0:
        print("==> exec: not measured, it needs root for cgroups of its own", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as directory:
        root = f"bh-bench-probes-{os.getpid()}"
        host = LinuxHost(HostOptions(Path(directory), Isolation.BEST_EFFORT, root))
        host.open()

        async def scenario() -> Figures:
            commands = host.probe_commands()
            found = await measure("exec", ExecTarget(("true",)), COMMANDS, seconds, commands)
            await commands.close()
            return found

        try:
            yield asyncio.run(scenario())
        finally:
            host.close()


def render(series: list[Figures]) -> str:
    """A table."""
    rows = [
        (
            figures.name,
            str(figures.services),
            f"{figures.cpu_percent:.1f} %",
            f"{figures.cpu_ms:.2f} ms",
            f"{figures.latency_ms:.1f} ms",
            str(figures.failures),
        )
        for figures in series
    ]
    heading = ("probe every 5 s", "services", "CPU of one core", "CPU of each", "latency, median", "failed")
    return describe_machine() + "\n\n" + render_table(heading, rows)


def main() -> int:
    """Measures, prints, and writes if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each kind")
    parser.add_argument("--write", action="store_true", help="put the result into docs/benchmarks.md")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PLACE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(*arguments.serve))
    table = render([*measure_network(arguments.seconds), *measure_commands(arguments.seconds)])
    print(table)
    if arguments.write:
        write_page("probes", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
