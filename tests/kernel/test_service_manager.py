from __future__ import annotations

import os
import shutil
import socket

import pytest

from blackhole_cg.kernel.service_manager import ServiceManager, is_of_a_user, parse_job_type, parse_unit

UNIT = "blackhole-cg.service"


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        yield channel


def manager(address: str | None = "/nonexistent/notify", **fields) -> ServiceManager:
    return ServiceManager(address, fields.get("watchdog_seconds"), fields.get("unit", UNIT))


def test_facts_are_told_as_lines(listener):
    manager(listener.getsockname()).tell(READY=1, STATUS="3 services:\n2 running")
    assert listener.recv(1000) == b"READY=1\nSTATUS=3 services: 2 running"


def test_a_descriptor_is_stored_by_name_and_let_go_of(listener, tmp_path):
    (tmp_path / "kept").write_text("what is kept")
    it = manager(listener.getsockname())
    with (tmp_path / "kept").open() as file:
        it.keep("svc/web/http", file.fileno())
    message, descriptors, _, _ = socket.recv_fds(listener, 1000, 4)
    assert message == b"FDSTORE=1\nFDNAME=svc/web/http\nFDPOLL=0"
    with open(descriptors[0]) as stored:
        assert stored.read() == "what is kept"
    it.keep_no_more("svc/web/http")
    assert listener.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=svc/web/http"
    manager(None).keep("svc/web/http", 0)


def test_a_descriptor_that_cannot_be_stored_is_told(listener, caplog, monkeypatch):
    monkeypatch.setattr("blackhole_cg.kernel.service_manager.KEEP_SECONDS", 0.05)
    it = manager(listener.getsockname())
    for _ in range(2000):  # until its queue is full
        it.keep("svc/web/http", 0)
        if caplog.text:
            break
    assert "svc/web/http is not stored with the service manager: timed out" in caplog.text


def test_an_abstract_address():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0bh-test-{os.getpid()}")
        channel.settimeout(10)
        manager(f"@bh-test-{os.getpid()}").tell(WATCHDOG=1)
        assert channel.recv(100) == b"WATCHDOG=1"


def test_nobody_listens_and_nobody_is_there():
    manager().tell(READY=1)
    assert not manager(None).present
    manager(None).tell(READY=1)
    assert not manager(None).is_restarting_us()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_this_process_or_not_at_all(environ, seconds):
    assert ServiceManager.from_environ(environ).watchdog_seconds == seconds


def test_the_innermost_unit_is_ours_and_its_place_says_whose_systemd_it_is():
    system = "0::/system.slice/blackhole-cg.service/supervisor\n"
    assert (parse_unit(system), is_of_a_user(system)) == (UNIT, False)
    user = "9:pids:/x.service\n0::/user.slice/user-0.slice/user@0.service/app.slice/blackhole-cg.service\n"
    assert (parse_unit(user), is_of_a_user(user)) == (UNIT, True)
    session = "0::/user.slice/user-7.slice/session-1.scope\n"
    assert (parse_unit(session), is_of_a_user(session)) == ("session-1.scope", False)
    assert parse_unit("0::/\n") is None


JOBS = f"""\
  12 other.service           stop    running
1234 {UNIT}    restart running
"""


@pytest.mark.parametrize(
    ("output", "answer"),
    [(JOBS, True), (JOBS.replace("restart", "stop"), False), ("No jobs running.\n", False), ("", False)],
)
def test_whether_a_stop_is_half_of_a_restart_is_asked_of_systemd(fp, output, answer):
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        pytest.skip("systemctl is not installed")
    fp.register([systemctl, fp.any()], stdout=output)
    it = ServiceManager("/run/notify", None, UNIT)
    assert it.is_restarting_us() is answer
    assert list(fp.calls[0])[-4:] == ["list-jobs", "--no-legend", "--no-pager", "--plain"]


def test_a_systemctl_that_fails_is_no_restart(fp):
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        pytest.skip("systemctl is not installed")
    fp.register([systemctl, fp.any()], returncode=1, stderr="Failed to connect to bus")
    assert ServiceManager("/run/notify", None, UNIT).is_restarting_us() is False


def test_job_lines_of_other_units_are_not_ours():
    assert parse_job_type(JOBS, UNIT) == "restart"
    assert parse_job_type(JOBS, "other.service") == "stop"
    assert parse_job_type(JOBS, "blackhole-cg") is None
