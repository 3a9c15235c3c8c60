"""A Check of the gRPC health protocol, grpc.health.v1.

Its two messages have one field each, so they are written and read here and protobuf is not needed.
Source: the protocol buffers wire format; grpc/health/v1/health.proto.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from blackhole_cg.core.probe_spec import Answer, GrpcTarget
from blackhole_cg.observe.probes.question import NotOk, put

METHOD: Final = "/grpc.health.v1.Health/Check"
STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING: Final = "SERVING"
_SERVICE_FIELD: Final = b"\x0a"  # field 1 of the request, a string
_STATUS_FIELD: Final = b"\x08"  # field 1 of the response, an enumeration


async def ask(target: GrpcTarget, timeout_seconds: float) -> Answer:
    """Whether the service says that it is serving."""
    import grpclib.client  # noqa: F401  (takes its time, which is not the service's)

    label = f"gRPC health of {target.service or 'the server'} at {target.address}"
    return await put(label, partial(_check, target), timeout_seconds)


async def _check(target: GrpcTarget) -> str:
    # Imported at the first need: it costs megabytes, and most services are not asked like this.
    from grpclib.client import Channel, UnaryUnaryMethod
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

    codec: Any = _PlainBytes()
    address = target.address
    if address.unix_socket is not None:
        channel = Channel(path=address.unix_socket, codec=codec)
    else:
        channel = Channel(address.host, address.port, codec=codec)
    check = UnaryUnaryMethod[bytes, bytes](channel, METHOD, bytes, bytes)
    try:
        status = parse_response(await check(render_request(target.service)))
    except GRPCError as cause:
        raise NotOk(": ".join(filter(None, (cause.status.name, cause.message)))) from cause
    except (ProtocolError, StreamTerminatedError) as cause:
        raise NotOk(f"the answer is not gRPC: {cause}") from cause
    finally:
        channel.close()
    if status != SERVING:
        raise NotOk(status)
    return status


def render_request(service: str) -> bytes:
    """HealthCheckRequest."""
    name = service.encode()
    return _SERVICE_FIELD + _render_number(len(name)) + name if name else b""


def parse_response(data: bytes) -> str:
    """The status in HealthCheckResponse; an absent field is the first one. Raises NotOk for anything else."""
    if not data:
        return STATUSES[0]
    if len(data) != 2 or data[:1] != _STATUS_FIELD or data[1] >= len(STATUSES):
        raise NotOk(f"the answer is not a HealthCheckResponse: {data[:20].hex()}")
    return STATUSES[data[1]]


def _render_number(number: int) -> bytes:
    """A varint: seven bits a byte, the lowest first, the highest bit says that more follow."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


class _PlainBytes:
    """A codec of grpclib: messages are the bytes they are sent as."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: object) -> bytes:
        return message

    def decode(self, data: bytes, message_type: object) -> bytes:
        return data
