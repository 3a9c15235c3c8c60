"""The gRPC health protocol, against a real gRPC server that changes its mind."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from blackhole_cg.core.probe_spec import Address, Answer, GrpcTarget
from blackhole_cg.observe.probes.grpc import METHOD, ask, parse_response, render_request
from blackhole_cg.observe.probes.question import NotOk
from tests.observe.probes.servers import (
    IMPATIENCE_SECONDS,
    PATIENCE_SECONDS,
    in_time,
    replying,
    serve,
    silent,
    unserved_port,
)

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class PlainBytes:
    """Messages as the bytes on the wire."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


@dataclass
class HealthServer:
    """A server with a health service; `statuses` by the name as it is on the wire."""

    statuses: dict[bytes, bytes] = field(default_factory=dict)
    delay_seconds: float = 0.0
    method: str = METHOD

    def __mapping__(self) -> dict[str, Handler]:
        return {self.method: Handler(self.check, Cardinality.UNARY_UNARY, bytes, bytes)}

    async def check(self, stream: Stream[bytes, bytes]) -> None:
        request = await stream.recv_message()
        await asyncio.sleep(self.delay_seconds)
        if request not in self.statuses:
            raise GRPCError(Status.NOT_FOUND, "unknown service")
        await stream.send_message(self.statuses[request])

    @contextlib.asynccontextmanager
    async def listening(self, path: Path | None = None) -> AsyncIterator[Address]:
        codec: Any = PlainBytes()
        server = Server([self], codec=codec)
        if path is not None:
            await server.start(path=str(path))
            address = Address(unix_socket=str(path))
        else:
            await server.start("127.0.0.1", 0)
            assert server._server is not None
            address = Address(port=server._server.sockets[0].getsockname()[1])
        try:
            yield address
        finally:
            server.close()
            await server.wait_closed()


WEB = b"\x0a\x03web"


@pytest.mark.parametrize("is_unix", [False, True])
def test_a_server_that_changes_its_mind(is_unix: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        health = HealthServer({WEB: SERVING, b"": SERVING})
        async with health.listening(tmp_path / "s" if is_unix else None) as address:
            label = f"gRPC health of web at {address}"
            answer = await ask(GrpcTarget(address, "web"), PATIENCE_SECONDS)
            assert (answer.ok, answer.message) == (True, f"{label}: SERVING")
            health.statuses[WEB] = NOT_SERVING
            answer = await ask(GrpcTarget(address, "web"), PATIENCE_SECONDS)
            assert (answer.ok, answer.message) == (False, f"{label}: NOT_SERVING")
            assert (await ask(GrpcTarget(address, ""), PATIENCE_SECONDS)).ok
            health.statuses[WEB] = b""
            assert (await ask(GrpcTarget(address, "web"), PATIENCE_SECONDS)).message == f"{label}: UNKNOWN"
            answer = await ask(GrpcTarget(address, "other"), PATIENCE_SECONDS)
            assert answer.message == f"gRPC health of other at {address}: NOT_FOUND: unknown service"
            health.statuses[WEB] = b"\x12\x01x"
            answer = await ask(GrpcTarget(address, "web"), PATIENCE_SECONDS)
            assert answer.message == f"{label}: the answer is not a HealthCheckResponse: 120178"

    in_time(scenario())


def test_a_server_without_a_health_service() -> None:
    async def scenario() -> Answer:
        async with HealthServer(method="/other.Service/Call").listening() as address:
            return await ask(GrpcTarget(address), PATIENCE_SECONDS)

    answer = in_time(scenario())
    assert not answer.ok
    status = answer.message.removeprefix("gRPC health of the server at ").split(": ")[1]
    assert status in ("UNIMPLEMENTED", "UNKNOWN")  # by whether the server sends a content type with it


def test_a_slow_one_a_silent_one_and_one_that_speaks_something_else() -> None:
    async def scenario() -> None:
        async with HealthServer({b"": SERVING}, delay_seconds=30).listening() as address:
            slow = await ask(GrpcTarget(address), IMPATIENCE_SECONDS)
        async with serve(silent) as address:
            mute = await ask(GrpcTarget(address), IMPATIENCE_SECONDS)
        for answer in (slow, mute):
            assert not answer.ok
            assert answer.message.endswith(f": no answer within {IMPATIENCE_SECONDS:g}s")
        async with serve(replying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
            other = await ask(GrpcTarget(address), PATIENCE_SECONDS)
        assert not other.ok
        assert ": the answer is not gRPC: " in other.message or "reset by peer" in other.message

    in_time(scenario())


def test_nobody_listens(tmp_path: Path) -> None:
    with unserved_port() as port:
        answer = in_time(ask(GrpcTarget(Address(port=port), "web"), PATIENCE_SECONDS))
        assert answer.message == f"gRPC health of web at 127.0.0.1:{port}: connection refused"
    answer = in_time(ask(GrpcTarget(Address(unix_socket=str(tmp_path / "s"))), PATIENCE_SECONDS))
    assert answer.message == f"gRPC health of the server at unix:{tmp_path / 's'}: no such file or directory"


def test_messages_on_the_wire() -> None:
    assert render_request("") == b""
    assert render_request("web") == WEB
    assert render_request("x" * 300) == b"\x0a\xac\x02" + b"x" * 300
    assert [parse_response(data) for data in (b"", SERVING, NOT_SERVING)] == [
        "UNKNOWN",
        "SERVING",
        "NOT_SERVING",
    ]
    for data in (b"\x08", b"\x08\x09", b"\x10\x01", b"\x08\x01\x08\x01"):
        with pytest.raises(NotOk, match="not a HealthCheckResponse"):
            parse_response(data)


def test_grpc_is_loaded_only_at_the_first_need() -> None:
    code = (
        "import sys, blackhole_cg.observe.probes.ask, blackhole_cg.observe.probes.schedule; "
        "print(sorted({'grpclib', 'h2', 'google.protobuf', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
