"""A GET request, each over a connection of its own, and just as much of HTTP/1.1 as its answer takes.

A redirect is a success and is not followed. Heads and bodies are read up to a bound.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Final
from urllib.parse import quote

from blackhole_cg.core.probe_spec import Answer, HttpTarget
from blackhole_cg.observe.probes.question import NotOk, excerpt, put
from blackhole_cg.observe.probes.tcp import connect

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_LENGTH: Final = re.compile("[0-9]{1,18}")
_WITHOUT_BODY: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers; their names are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.status} {self.reason}".rstrip()


async def ask(target: HttpTarget, timeout_seconds: float) -> Answer:
    """Whether a GET is answered with 200 to 399, and with the expected text."""
    path = target.path.partition("?")[0]  # what follows may be a secret
    place = f"{target.scheme}://{target.address}{path}"
    if target.address.unix_socket is not None:
        place = f"{target.address} {path}"
    return await put(f"GET {place}", partial(_get, target), timeout_seconds)


async def _get(target: HttpTarget) -> str:
    """Bodies are read even when they do not matter: a server may complain of a client that goes too early."""
    connection = await connect(target.address)
    is_tls = target.scheme == "https"
    reader, writer = await asyncio.open_connection(
        sock=connection,
        limit=MAX_HEAD_BYTES,
        ssl=_tls() if is_tls else None,
        server_hostname="" if is_tls else None,
    )
    try:
        writer.write(_request(target))
        head, body = await read_response(reader)
    finally:
        writer.transport.abort()
    if not 200 <= head.status < 400:
        text = excerpt(body)
        raise NotOk(f"{head}: {text}" if text else str(head))
    if target.body is not None and target.body.encode() not in body:
        raise NotOk(f"{head}, but the body is without the expected text: {excerpt(body)}")
    return str(head)


def _request(target: HttpTarget) -> bytes:
    defaults = {
        "Host": "localhost" if target.address.unix_socket is not None else str(target.address),
        "User-Agent": "blackhole-cg",
        "Accept": "*/*",
        "Connection": "close",
    }
    given = {name.lower() for name, _ in target.headers}
    lines = [f"GET {quote(target.path, safe=_PRINTABLE)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in defaults.items() if name.lower() not in given]
    lines += [f"{name}: {' '.join(value.splitlines())}" for name, value in target.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


async def read_response(reader: asyncio.StreamReader) -> tuple[Head, bytes]:
    """The final head, and the body up to its end or the bound; one that is cut off is what came of it.

    Raises:
        NotOk: this is not HTTP/1.
    """
    head = await _read_head(reader)
    return head, await _read_body(reader, head)


async def _read_head(reader: asyncio.StreamReader) -> Head:
    """The head of the final answer: those of 1xx come before it."""
    while True:
        try:
            text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError as cause:
            what = f"an answer that is cut off: {excerpt(cause.partial)}" if cause.partial else "no answer"
            raise NotOk(f"the connection was closed with {what}") from cause
        except asyncio.LimitOverrunError as cause:
            raise NotOk(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes") from cause
        head = _parse_head(text)
        if head.status >= 200:
            return head


def _parse_head(text: str) -> Head:
    first, *lines = text.strip("\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not (len(status) == 3 and status.isdecimal()):
        raise NotOk(f"the answer is not HTTP/1: {excerpt(first.encode('latin-1'))}")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return Head(int(status), reason.strip(), headers)


async def _read_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    if head.status in _WITHOUT_BODY:
        return b""
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    length = head.headers.get("content-length", "")
    bound = min(int(length), MAX_BODY_BYTES) if _LENGTH.fullmatch(length) else MAX_BODY_BYTES
    return await _read_up_to(reader, bound)


async def _read_up_to(reader: asyncio.StreamReader, bound: int) -> bytes:
    try:
        return await reader.readexactly(bound)
    except asyncio.IncompleteReadError as cause:
        return cause.partial


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while len(body) < MAX_BODY_BYTES:
        try:
            length = int((await reader.readline()).partition(b";")[0], 16)
        except ValueError:
            break  # cut off, or nonsense: what came before counts
        if length <= 0:
            break
        body += await _read_up_to(reader, min(length, MAX_BODY_BYTES - len(body)))
        await _read_up_to(reader, len(b"\r\n"))
    return body


@cache
def _tls() -> ssl.SSLContext:
    """Any certificate will do, as in Kubernetes: the question is whether the service answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
