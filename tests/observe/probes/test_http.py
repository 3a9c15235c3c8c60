"""GET requests against real servers: what passes, what fails, and what is said about it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.probe_spec import Address, Answer, HttpTarget
from blackhole_cg.observe.probes.http import MAX_BODY_BYTES, MAX_HEAD_BYTES, ask, read_response
from blackhole_cg.observe.probes.question import NotOk
from tests.observe.probes.servers import (
    IMPATIENCE_SECONDS,
    PATIENCE_SECONDS,
    Handler,
    in_time,
    replying,
    serve,
    silent,
    unserved_port,
)

OK = b"HTTP/1.1 200 OK\r\n"


def answer_of(handle: Handler, timeout_seconds: float = PATIENCE_SECONDS, **fields: object) -> Answer:
    """Of a server that does this with the connection; the message without its address."""

    async def scenario() -> Answer:
        async with serve(handle) as address:
            answer = await ask(HttpTarget(address, **fields), timeout_seconds)  # type: ignore[arg-type]
            return replace(answer, message=answer.message.replace(str(address), "HOST"))

    made: Answer = in_time(scenario())
    return made


@pytest.mark.parametrize(
    ("pieces", "ok", "message"),
    [
        ([OK + b"\r\n"], True, "200 OK"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], True, "204 No Content"),
        ([b"HTTP/1.0 399\r\n\r\n"], True, "399"),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n"], True, "302 Found"),
        ([b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", OK + b"\r\n"], True, "200 OK"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], False, "400 Bad Request"),
        (
            [b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 20\r\n\r\nno  database\r\nhere\r\nx"],
            False,
            "500 Internal Server Error: no database here",
        ),
        (
            [
                b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbro\r\n",
                b"2;x=y\r\nke\r\n0\r\n\r\n",
            ],
            False,
            "503 No: broke",
        ),
        ([b"HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\ncut"], False, "503 No: cut"),
        ([], False, "the connection was closed with no answer"),
        ([b"HTTP/1.1 200"], False, "the connection was closed with an answer that is cut off: HTTP/1.1 200"),
        ([b"SSH-2.0-server\r\n\r\n"], False, "the answer is not HTTP/1: SSH-2.0-server"),
        ([b"HTTP/1.1 OK\r\n\r\n"], False, "the answer is not HTTP/1: HTTP/1.1 OK"),
        (
            [OK + b"X: " + b"y" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n"],
            False,
            f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes",
        ),
    ],
)
def test_statuses_and_what_is_no_status(pieces: list[bytes], ok: bool, message: str) -> None:
    answer = answer_of(replying(*pieces), path="/healthz?token=secret")
    assert (answer.ok, answer.message) == (ok, f"GET http://HOST/healthz: {message}")
    assert 0 < answer.latency_seconds < PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("body", "ok"),
    [
        (b"\r\nstatus: green", True),
        (b"Content-Length: 13\r\n\r\nstatus: green and more", True),
        (b"Content-Length: 5\r\n\r\nstatus: green", False),
        (b"Transfer-Encoding: chunked\r\n\r\n8\r\nstatus: \r\n5\r\ngreen\r\n0\r\n\r\n", True),
        (b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\nstatus: green\r\n", False),
        (b"\r\nstatus: red", False),
        (b"\r\n" + b"x" * (MAX_BODY_BYTES - 13) + b"status: green", True),
        (b"\r\n" + b"x" * MAX_BODY_BYTES + b"status: green", False),
    ],
)
def test_the_expected_text(body: bytes, ok: bool) -> None:
    answer = answer_of(replying(OK + body), body="status: green")
    assert answer.ok is ok
    assert ok or answer.message.startswith(
        "GET http://HOST/: 200 OK, but the body is without the expected text"
    )


def test_a_body_without_end_is_read_up_to_the_bound() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    assert answer_of(endless).ok


def test_a_half_open_server_is_given_up_on() -> None:
    message = f"GET http://HOST/: no answer within {IMPATIENCE_SECONDS:g}s"
    for handle in (silent, _stalling):
        answer = answer_of(handle, IMPATIENCE_SECONDS)
        assert (answer.ok, answer.message) == (False, message)
        assert answer.latency_seconds >= IMPATIENCE_SECONDS


async def _stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 10\r\n\r\nhalf")
    await silent(reader, writer)


def test_nobody_listens(tmp_path: Path) -> None:
    with unserved_port() as port:
        answer = in_time(ask(HttpTarget(Address(port=port)), PATIENCE_SECONDS))
        assert (answer.ok, answer.message) == (False, f"GET http://127.0.0.1:{port}/: connection refused")
    path = tmp_path / "none.sock"
    answer = in_time(ask(HttpTarget(Address(unix_socket=str(path)), "/x"), PATIENCE_SECONDS))
    assert (answer.ok, answer.message) == (False, f"GET unix:{path} /x: no such file or directory")


def test_the_request(tmp_path: Path) -> None:
    asked: list[str] = []

    async def remember(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(OK + b"\r\n")

    async def scenario() -> None:
        async with serve(remember, tmp_path / "s") as address:
            await ask(HttpTarget(address, "/a b?c=é", headers=(("X-Key", "1\r\n2"),)), PATIENCE_SECONDS)
            await ask(HttpTarget(address, headers=(("HOST", "web.example"),)), PATIENCE_SECONDS)
        async with serve(remember) as address:
            await ask(HttpTarget(address), PATIENCE_SECONDS)
            assert f"Host: 127.0.0.1:{address.port}\r\n" in asked[2]

    in_time(scenario())
    assert asked[0] == (
        "GET /a%20b?c=%C3%A9 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: blackhole-cg\r\nAccept: */*\r\n"
        "Connection: close\r\nX-Key: 1 2\r\n\r\n"
    )
    assert asked[1].count("web.example") == 1 and "Host: localhost" not in asked[1]


def test_a_real_server_that_changes_its_mind() -> None:
    async def scenario() -> None:
        status = 200

        async def health(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(status=status)
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(b"database: ")
            await response.write(b"up" if status == 200 else b"down")
            return response

        app = web.Application()
        app.router.add_get("/healthz", health)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        target = HttpTarget(Address(port=port), "/healthz", body="database: up")
        found = []
        for status in (200, 503, 200):  # noqa: B007  (read by the server)
            found.append(await ask(target, PATIENCE_SECONDS))
        await runner.cleanup()
        assert [answer.ok for answer in found] == [True, False, True]
        url = f"GET http://127.0.0.1:{port}/healthz"
        assert found[1].message == f"{url}: 503 Service Unavailable: database: down"

    in_time(scenario())


def test_https_accepts_any_certificate_and_says_when_there_is_no_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=other.example"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def scenario() -> tuple[Answer, Answer]:
        async with serve(replying(OK + b"\r\n"), tls=tls) as address:
            good = await ask(HttpTarget(address, scheme="https"), PATIENCE_SECONDS)
        async with serve(_plain) as address:
            return good, await ask(HttpTarget(address, scheme="https"), PATIENCE_SECONDS)

    good, bad = in_time(scenario())
    assert good.ok and good.message.endswith("/: 200 OK")
    assert not bad.ok and ": TLS failed: " in bad.message


async def _plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")


_pieces = st.lists(
    st.sampled_from(
        [
            *(
                b"HTTP/1.1 ",
                b"200 ",
                b"OK",
                b"\r\n",
                b"\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b":",
                b" ",
            ),
            *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"5", b"-1", b"9" * 5000, b"\xff", b"ffff"),
        ]
    ),
    max_size=20,
)


@given(st.binary(max_size=200) | _pieces.map(b"".join))
def test_whatever_is_answered(data: bytes) -> None:
    """Either a head and a body, or NotOk: nothing else is ever raised."""

    async def scenario() -> None:
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
        reader.feed_data(data)
        reader.feed_eof()
        try:
            head, body = await read_response(reader)
        except NotOk as refusal:
            assert str(refusal)
        else:
            assert 200 <= head.status <= 999
            assert body == b"" or body[:1] in data

    asyncio.run(scenario())
