"""What people are shown, from values alone."""

from __future__ import annotations

from typing import Any

import pytest

from blackhole_cg.cli.banner import render_banner
from blackhole_cg.cli.logs import MessagePrinter
from blackhole_cg.cli.monitor import render_sample
from blackhole_cg.cli.reload import print_applied
from blackhole_cg.cli.status_view import render_details, render_overview, short_value
from blackhole_cg.cli.terminal import Cell, Column, Screen, printable, render_table
from blackhole_cg.core.facts import LimitState
from tests.control.fake_operations import make_info, make_line, make_sample

WIDE = Screen()


def info(name: str = "web", **changes: Any) -> dict[str, Any]:
    return make_info(name, **changes).to_json()


IDLE: dict[str, Any] = {"pid": None, "uptime_seconds": None, "started_wall": None, "usage": {}, "limits": {}}


def overview(*services: dict[str, Any], screen: Screen = WIDE) -> str:
    return "\n".join(render_overview(services, screen))


def test_an_overview_shows_usage_beside_limits_and_what_is_not_enforced() -> None:
    held = {"cpu_max": LimitState("50000 100000", "50000 100000", True), "pids_max": LimitState(5, 5, True)}
    lines = overview(
        info("held", limits=held), info("loose"), info("idle", state="stopped", **IDLE)
    ).splitlines()
    assert lines[1].split() == [
        "held",
        "running",
        "-",
        "4242",
        "1m30s",
        "0",
        "12%/50%",
        "61.2M",
        "pids_max",
        "5",
    ]
    assert "12%/(200%)  61.2M/(512M)" in lines[2]
    assert lines[3].split() == ["idle", "stopped", "-", "-", "-", "0", "-", "-"]
    assert lines[5:] == [
        "loose: not enforced: cpu_max, memory_max (cpu, memory: bound to cgroup v1 on this host)"
    ]


def test_a_sample_shows_shares_that_are_not_zero_and_counts_that_are_known() -> None:
    sample = {
        "service": "web",
        **make_sample(memory_percent=None, memory_pressure_percent=3.21, open_files=40),
    }
    sample |= {"memory_rss_bytes": 2**20, "cpu_throttled_percent": 0.0, "io_pressure_percent": None}
    text = render_sample(sample, WIDE)
    assert "memory 61.2M, pids 3" in text
    assert text.endswith("write 4.1K/s, RSS 1M, open files 40, waits for memory 3.2%")


def test_services_that_lack_the_same_share_one_note() -> None:
    other = {"io_weight": LimitState(500, None, False, "no device honours it")}
    text = overview(info("a"), info("b", limits=other), info("c"))
    assert "a, c: not enforced: cpu_max, memory_max (" in text
    assert "b: not enforced: io_weight (no device honours it)" in text


def test_a_failed_service_says_why_and_a_waiting_one_when() -> None:
    text = overview(
        info("flaky", state="failed", last_error="gave up: \x1b[2Jexit 3", **IDLE),
        info("soon", state="restarting", last_error="exit 1", next_restart_in_seconds=2.5, **IDLE),
        info("fine", last_error="an old one", limits={}),
    )
    assert "flaky: failed: gave up: \\x1b[2Jexit 3" in text
    assert "soon: next start in 2.5s: exit 1" in text
    assert "an old one" not in text


def test_nothing_configured_is_said() -> None:
    assert overview() == "no services are configured"


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_an_overview_fits_its_screen(width: int) -> None:
    services = [
        info("short"),
        info("a-name-that-is-as-long-as-some-people-like", health="unhealthy", pid=4194304),
    ]
    lines = render_overview(services, Screen(width=width))
    assert max(map(len, lines)) <= width
    assert ("(512M)" in lines[1]) == (width >= 120)


def test_colours_do_not_change_the_layout() -> None:
    import re

    services = [info("a", health="healthy"), info("b", state="failed", last_error="exit 1")]
    coloured = "\n".join(render_overview(services, Screen(colour=True, width=80)))
    plain = "\n".join(render_overview(services, Screen(width=80)))
    stripped = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines())
    assert stripped == plain
    assert "\x1b[31;1mfailed\x1b[0m" in coloured


def test_details_have_every_limit_requested_beside_effective() -> None:
    last = {"run_id": 3, "code": None, "signal": 9, "reason": "oom", "at_wall": "2030-01-31T12:00:00.000000Z"}
    one = info(
        health="healthy",
        last_exit=last,
        last_error="out of memory",
        next_restart_in_seconds=4,
        tcp_port=80,
        adopted=True,
        outdated=True,
        logs={"lines_total": 7, "dropped_total": 2},
    )
    text = "\n".join(render_details(one, WIDE))
    for expected in (
        "web: running\n",
        "health        healthy\n",
        "main process  pid 4242 (run 1, adopted, outdated)\n",
        "last exit     killed by SIGKILL (oom, run 3), ",
        "next start    in 4s\n",
        "logs          7 lines, 2 dropped\n",
        "TCP port      80\n",
        "memory_max  512M       -          no: memory: bound to cgroup v1 on this host\n",
        "pids_max    100        100        yes\n",
    ):
        assert expected in text


def test_details_of_a_service_that_never_ran() -> None:
    text = "\n".join(
        render_details(info(state="stopped", desired="down", enabled=False, cgroup=None, **IDLE), WIDE)
    )
    assert "desired       down (not enabled)" in text
    assert "LIMIT" not in text


@pytest.mark.parametrize("last", [{"code": 3, "signal": None}, {"code": None, "signal": None}])
def test_last_exits(last: dict[str, Any]) -> None:
    last = {**last, "run_id": 1, "reason": "exited", "at_wall": None}
    text = "\n".join(render_details(info(last_exit=last), WIDE))
    assert ("exit code 3 (exited, run 1)" if last["code"] else "exit status unknown (exited, run 1)") in text


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("cpu_max", "200000 100000", "200%"),
        ("cpu_max", "max 100000", "max 100000"),
        ("memory_max", 536870912, "512M"),
        ("memory_oom_group", True, "yes"),
        ("memory_max", "max", "max"),
        ("memory_high", 60395520, "57.6M"),
        ("nofile", 10000, "10000"),
        ("memory_max", None, "-"),
    ],
)
def test_values(name: str, value: object, shown: str) -> None:
    assert short_value(name, value) == shown


def test_a_banner_says_what_runs_within_what_and_how_to_talk_to_it() -> None:
    services = [info("web"), info("spare", enabled=False, state="stopped", **IDLE)]
    lines = render_banner(services, "/tmp/here", WIDE)
    assert lines[0] == "all services running"
    text = "\n".join(lines)
    assert "web   running  4242  /blackhole/web  cpu_max 200%/-, memory_max 512M/-, pids_max 100/100" in text
    assert "spare" not in text
    assert "blackhole-cg status --runtime-dir /tmp/here" in text
    assert "blackhole-cg logs web --follow --runtime-dir /tmp/here" in text
    assert "--runtime-dir" not in "\n".join(render_banner(services, None, WIDE))


def test_a_banner_does_not_claim_what_is_not_so() -> None:
    services = [info("web"), info("done", state="completed", **IDLE), info("bad", state="failed", **IDLE)]
    assert render_banner(services, None, WIDE)[0] == "running, but for bad"


def test_a_table_wraps_its_last_column() -> None:
    columns = [Column("A", [Cell("x")]), Column("B", [Cell("one two three")], wraps=True)]
    assert render_table(columns, Screen(width=11)) == ["A  B", "x  one two", "   three"]


def test_an_empty_table_has_its_titles() -> None:
    assert render_table([Column("A", []), Column("B", [])], WIDE) == ["A  B"]


def test_pieces_of_a_long_line_are_put_together_and_streams_are_not_mixed() -> None:
    lines = [
        make_line("lo", partial=True),
        make_line("ng"),
        make_line("half", partial=True),
        make_line("error", "stderr"),
        make_line("end"),
    ]
    printer = MessagePrinter({"stderr": b"| "})
    assert b"".join(map(printer.render, lines)) == b"long\nhalf\n| error\nend\n"


def test_printable_keeps_letters_and_shows_the_rest() -> None:
    assert printable("grün €") == "grün €"
    assert printable("a\x1b[31m\r\nb\u202e") == "a\\x1b[31m\\r\\nb\\u202e"


def test_who_is_restarted_for_anothers_sake_is_told_apart(capsys):
    detail = "its port 8000 is given to 'db'"
    changes = [
        {"service": "web", "change": "restart", "keys": [], "detail": detail},
        {"service": "api", "change": "restart", "keys": ["command"], "detail": detail},
        {"service": "db", "change": "added", "keys": []},
    ]
    print_applied({"changes": changes, "unchanged": [], "runtime": [], "deferred": []}, as_json=False)
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"web: restarted: {detail}",
        f"api: changed, and restarted where it is wanted up: command, {detail}",
        "db: added",
    ]
