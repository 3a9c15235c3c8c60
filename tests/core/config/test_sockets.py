"""Sockets that the supervisor is to hold: from keys to what is bound."""

from __future__ import annotations

import pytest

from blackhole_cg.core.config import render_yaml, show_config
from blackhole_cg.core.socket_spec import SocketKind, SocketSpec, split_address
from tests.core.config.files import CONTEXT, load, service

TEXT = """
services:
  web:
    tcp_port: 8080
    user: nobody
    sockets:
      http: {tcp: "{tcp_port}"}
      every: {tcp: "[::]:0443", backlog: 10, ipv6only: on}
      dns: {udp: "localhost:5353"}
      api: {unix: "run/{name}.sock", group: "33"}
      own: {unix: "{data_dir}/own.sock", mode: "0600", owner: root}
"""


def test_sockets_are_bound_in_the_order_in_which_they_are_written() -> None:
    directory = CONTEXT.working_dir
    assert service(TEXT).sockets == (
        SocketSpec("http", SocketKind.TCP, "127.0.0.1:8080"),
        SocketSpec("every", SocketKind.TCP, "[::]:443", 10, True),
        SocketSpec("dns", SocketKind.UDP, "127.0.0.1:5353"),
        SocketSpec("api", SocketKind.UNIX, f"{directory}/run/web.sock", owner="nobody", group="33"),
        SocketSpec("own", SocketKind.UNIX, "/var/lib/blackhole/web/own.sock", mode=0o600, owner="root"),
    )


def test_what_config_show_prints_means_the_same() -> None:
    shown = render_yaml(show_config(load(TEXT), CONTEXT))
    assert service(shown).sockets == service(TEXT).sockets
    assert service(shown).config_hash == service(TEXT).config_hash


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("backlog: 10", "backlog: 11"),
        ("443", "444"),
        ("every:", "all:"),
        ("0600", "0660"),
    ],
)
def test_a_run_depends_on_its_sockets(changed: str, again: str) -> None:
    before, after = service(TEXT), service(TEXT.replace(changed, again))
    assert before.config_hash != after.config_hash


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:443", ("::1", 443)), ("[::]:1", ("::", 1))],
)
def test_the_parts_of_an_address(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts
