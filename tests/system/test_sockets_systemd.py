"""Held sockets under a real systemd: a port answers even when supervisor and service are both dead.

Installs units, so it runs in the test VM only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import ROOT, alive
from tests.support.load import Load
from tests.support.ports import free_port
from tests.support.sockets import ask, is_refused
from tests.support.systemd import UNIT, Systemd, restarted_late
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(900)]


system = Systemd()


@pytest.fixture
def port() -> Iterator[int]:
    """Of a service of the installed units, whose supervisor is restarted only after a while."""
    number = free_port()
    web = {
        "command": [sys.executable, "-S", str(ROOT / "tests/support/held_server.py")],
        "sockets": {"http": {"tcp": number}},
        "restart": {"initial_delay": "100ms"},
    }
    with restarted_late({"web": web}):
        yield number


def stored() -> int:
    """How many descriptors systemd has: the socket, and the two FIFOs of the service's output."""
    return int(system.show("NFileDescriptorStore"))


def test_a_port_answers_when_supervisor_and_service_have_both_been_killed(port):
    assert system.verify(Path("/run/systemd/system")) == ""
    system.systemctl("start", UNIT)
    service = ask(port)
    eventually(lambda: stored() == 3, "systemd has the socket and the FIFOs")
    first = system.services()["web"]["run_id"]  # not 1 where an earlier test had a service of this name
    with Load(port, 2) as load:
        supervisor = int(system.show("MainPID"))
        os.kill(supervisor, 9)
        os.kill(service, 9)
        eventually(lambda: not alive(service) and not alive(supervisor), "both are dead")
        assert system.show("MainPID") == "0", "and the next one has not come yet"
        assert not is_refused(port)
        again = ask(port, timeout_seconds=300)
        assert again != service
    assert "refused" not in load.counts, load.counts
    assert load.counts["answered"] > 0
    info = system.services()["web"]
    assert (info["pid"], info["run_id"]) == (again, first + 1)
    assert info["sockets"]["http"]["held"]
    assert stored() == 3

    with Load(port, 2) as load:
        system.systemctl("restart", UNIT)
        system.run("blackhole-cg", "restart", "web")
    assert set(load.counts) == {"answered"}, load.counts
    system.run("blackhole-cg", "stop", "web")
    assert is_refused(port)
    eventually(lambda: stored() == 2, "systemd has let go of it")
    system.run("blackhole-cg", "start", "web")
    eventually(lambda: stored() == 3, "systemd has the new one")
    system.systemctl("stop", UNIT)
    assert is_refused(port)
    assert stored() == 0
