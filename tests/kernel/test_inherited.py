from __future__ import annotations

import fcntl
import json
import os
import socket
import sys

import pytest

from blackhole_cg.kernel.inherited import (
    FIRST_FD,
    Inheritance,
    is_valid_name,
    laid_out,
    render_environment,
)

# Says what it was handed over, by which names it listens where, and executes itself once more if told to.
SECOND = """
import json, os, socket, sys
from blackhole_cg.kernel.inherited import Inheritance, laid_out
inheritance = Inheritance.receive(os.environ)
held = {name: inheritance.take(name) for name in inheritance.names}
if len(sys.argv) > 1:
    with laid_out(dict(reversed(held.items()))) as variables:
        os.execve(sys.executable, [sys.executable, "-c", sys.argv[1]], {**os.environ, **variables})
inheritable = [os.get_inheritable(fd) for fd in held.values()]
ports = {name: socket.socket(fileno=fd).getsockname()[1] for name, fd in held.items()}
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([ports, left, inheritable]))
"""


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def open_numbers() -> dict[int, str]:
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            found[number] = f"{os.readlink(f'/proc/self/fd/{number}')} {os.get_inheritable(number)}"
        except OSError:
            continue  # the one that listed them
    return found


def execute(sockets: dict[str, socket.socket], program: str, *arguments: str, **told: str) -> str:
    """What a program prints that a child of ours becomes, with the sockets handed over to it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            with laid_out({name: each.fileno() for name, each in sockets.items()}) as variables:
                command = [sys.executable, "-c", program, *arguments]
                os.execve(sys.executable, command, {**os.environ, **variables, **told})
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    assert os.waitpid(pid, 0)[1] == 0, text
    return text


def test_sockets_go_through_two_programs_under_their_names():
    with listening() as one, listening() as two, listening() as three:
        sockets = {"svc/web/http": two, "svc/web/admin": one, "lock": three}
        ports, left, inheritable = json.loads(execute(sockets, SECOND, SECOND))
        assert ports == {name: each.getsockname()[1] for name, each in sockets.items()}
        assert left == []
        assert inheritable == [False] * 3


def test_an_exec_that_fails_leaves_every_number_as_it_was():
    with listening() as one, listening() as two:
        occupied = fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, FIRST_FD)  # inheritable, unlike the others
        before = open_numbers()
        with pytest.raises(FileNotFoundError), laid_out({"a": two.fileno(), "b": one.fileno()}) as variables:
            assert variables == {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
            assert socket.socket(fileno=os.dup(FIRST_FD)).getsockname() == two.getsockname()
            os.execve("/nonexistent/blackhole-cg", ["blackhole-cg"], variables)
        assert open_numbers() == before
        os.close(occupied)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""},
    ],
    ids=["nothing", "for another process", "no number", "none"],
)
def test_what_is_not_for_us_is_forgotten(environ):
    given = {**environ, "PATH": "/bin"}
    assert Inheritance.receive(given).names == []
    assert given == {"PATH": "/bin"}


def test_names_that_do_not_match_and_numbers_that_are_not_open():
    program = (
        "import os; from blackhole_cg.kernel.inherited import Inheritance\n"
        "it = Inheritance.receive(os.environ)\n"
        "print(it.names, it.take('unknown'), it.take('unknown'), it.take('other'))"
    )
    with listening() as one:
        said = execute({"only-one": one}, program, LISTEN_FDS="2")
    assert said.splitlines() == [
        "descriptor 4 (unknown) is not taken over: [Errno 9] Bad file descriptor",
        "['unknown'] 3 None None",
    ]


def test_one_name_for_several_and_what_nobody_takes_is_closed():
    with listening() as one, listening() as two:
        inheritance = Inheritance({"web": [os.dup(one.fileno()), os.dup(two.fileno())], "old": [os.dup(0)]})
        first = inheritance.take("web")
        assert inheritance.names == ["web", "old"]
        assert socket.socket(fileno=first).getsockname() == one.getsockname()
        before = len(os.listdir("/proc/self/fd"))
        inheritance.close()
        assert len(os.listdir("/proc/self/fd")) == before - 2
        assert inheritance.names == []


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "é", "x" * 256, "\x7f"])
def test_names_that_no_descriptor_can_have(name):
    assert not is_valid_name(name)
    with pytest.raises(ValueError, match="no descriptor can be called"):
        render_environment(["good", name], 7)


def test_names_that_one_can_have():
    assert is_valid_name("svc/web_1-a/http.v2") and is_valid_name("x" * 255)
