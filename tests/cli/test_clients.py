"""The commands that ask a supervisor, each in a real process against a real socket."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from blackhole_cg.errors import ConfigError, Diagnostic, OperationError
from tests.cli.conftest import COMMAND, ROOT, Cli
from tests.control.fake_operations import Served, make_event, make_info, make_line, make_sample
from tests.support.waiting import eventually

# ---- exit codes ----


def test_without_a_supervisor_every_client_exits_with_3(cli: Cli, tmp_path: Path) -> None:
    for arguments in (
        ["status"],
        ["start", "web"],
        ["logs", "web"],
        ["events", "--follow"],
        ["monitor"],
        ["why", "web"],
        ["reset", "--all"],
    ):
        done = cli(*arguments)
        assert (done.returncode, done.stdout) == (3, b"")
        assert f"no supervisor answers on {tmp_path}/control.sock".encode() in done.stderr


def test_the_option_wins_over_the_environment(cli: Cli, served: Served, tmp_path: Path) -> None:
    assert cli("status", BLACKHOLE_CG_RUNTIME_DIR="/nowhere").returncode == 3
    assert cli("status", "--runtime-dir", str(tmp_path), BLACKHOLE_CG_RUNTIME_DIR="/nowhere").returncode == 0


def test_an_ordinary_user_looks_in_the_xdg_directory() -> None:
    from blackhole_cg.supervisor.paths import default_paths

    assert str(default_paths({}, 0).runtime_dir) == "/run/blackhole-cg"
    found = default_paths({"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/x"}, 7)
    assert str(found.runtime_dir) == "/run/user/7/blackhole-cg"


def test_a_failed_operation_exits_with_1_and_says_why(cli: Cli, served: Served) -> None:
    served.operations.failure = OperationError("cannot start 'web': exit 3")
    done = cli("start", "web")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"blackhole-cg: cannot start 'web': exit 3\n"


def test_a_reload_says_what_changed_and_what_will_not_yet(cli: Cli, served: Served) -> None:
    done = cli("reload")
    assert done.stdout.decode().splitlines() == [
        "store: changed, without a restart: stop",
        "web: changed, and restarted where it is wanted up: command, umask",
        "new: added",
        "supervisor: changed: max_processes",
        "supervisor: isolation will change when the supervisor itself is started again",
        "1 service unchanged",
    ]
    assert json.loads(cli("reload", "--json").stdout)["unchanged"] == ["spare"]


def test_a_reload_of_a_wrong_file_exits_with_78_and_a_line_for_each_error(cli: Cli, served: Served) -> None:
    served.operations.failure = ConfigError([
        Diagnostic("f.yaml", 3, 1, "services.web", "wrong"),
        Diagnostic("f.yaml", 4, 1, "services.db", "wrong too"),
    ])  # fmt: skip
    done = cli("reload")
    assert (done.returncode, done.stdout) == (78, b"")
    assert done.stderr.decode().splitlines() == [
        "f.yaml:3:1: services.web: wrong",
        "f.yaml:4:1: services.db: wrong too",
        "blackhole-cg: the configuration is invalid: 2 errors",
    ]


def test_an_upgrade_says_from_which_version_to_which_and_what_runs_on(cli: Cli, served: Served) -> None:
    done = cli("upgrade")
    assert done.stdout == (
        b"upgraded: from version 1.0.0 to 1.1.0; the same process 4000, and 1 service running on\n"
    )
    assert json.loads(cli("upgrade", "--json").stdout)["services"] == {"web": 4242}
    served.operations.failure = OperationError("cannot upgrade: no")
    done = cli("upgrade")
    assert (done.returncode, done.stderr) == (1, b"blackhole-cg: cannot upgrade: no\n")


def test_health_shows_each_probe_and_its_last_answer(cli: Cli, served: Served) -> None:
    lines = cli("health", "web").stdout.decode().splitlines()
    assert lines[0].split() == ["NAME", "HEALTH", "PROBE", "TYPE", "FAILURES", "ANSWERED", "TOOK", "ANSWER"]
    assert lines[1].split() == ["web", "unhealthy", "startup", "tcp", "-", "-", "-", "-"]
    assert lines[2].split()[:5] == ["web", "unhealthy", "liveness", "http", "2"]
    assert lines[2].endswith("12.3ms  GET http://x/: 500")
    everything = cli("health").stdout.decode().splitlines()
    assert [line.split()[0] for line in everything[1:]] == ["store", "store", "web", "web", "spare"]
    found = json.loads(cli("health", "web", "--json").stdout)
    assert list(found["services"]) == ["web"]
    assert found["services"]["web"]["probes"][1] == {
        "kind": "liveness",
        "type": "http",
        "ok": False,
        "failures": 2,
        "last_at_wall": "2030-01-31T12:00:00.000000Z",
        "last_message": "GET http://x/: 500",
        "latency_seconds": 0.0123,
    }


def test_endpoints_are_a_table_for_people_and_json_for_programs(cli: Cli, served: Served) -> None:
    lines = cli("endpoints").stdout.decode().splitlines()
    assert lines[0].split() == ["NAME", "TCP", "UNIX", "SOCKET", "STATE", "HEALTH", "READY"]
    assert lines[1].split() == ["store", "-", "/run/s", "stopped", "-", "no"]
    assert lines[2].split() == ["web", "127.0.0.1:30000", "-", "running", "healthy", "yes"]
    found = json.loads(cli("endpoints", "--json").stdout)["endpoints"]
    assert list(found) == ["store", "web"]
    assert json.loads(cli("endpoints", "web", "--json").stdout)["endpoints"] == {"web": found["web"]}
    assert cli("endpoints", "spare").stdout == b"no service has a tcp_port or a unix_socket\n"


def test_an_unknown_service_exits_with_1_and_names_the_closest(cli: Cli, served: Served) -> None:
    for arguments in (
        ["status", "stroe"],
        ["health", "stroe"],
        ["endpoints", "stroe"],
        ["stop", "stroe"],
        ["logs", "stroe"],
        ["monitor", "stroe"],
        ["why", "stroe"],
        ["events", "stroe"],
    ):
        done = cli(*arguments)
        assert done.returncode == 1
        assert done.stderr == b"blackhole-cg: there is no service 'stroe' (did you mean 'store'?)\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["stop"], "name at least one service, or say --all"),
        (["stop", "--services", ","], "name at least one service, or say --all"),
        (["stop", "web", "--all"], "exclude each other"),
        (["stop", "--all", "--services=web"], "exclude each other"),
        (["logs"], "Missing argument 'NAME'"),
        (["logs", "web", "--tail", "-1"], "--tail"),
        (["logs", "web", "--stream", "stdin"], "stdin"),
        (["statsu"], "did you mean 'status'?"),
        (["zzzz"], "one of: run, check"),
        (["status", "--jsn"], "--json"),
    ],
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str], text: str) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert text in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_bad_since_exits_with_1_and_says_what_is_accepted(cli: Cli, served: Served) -> None:
    done = cli("logs", "web", "--since", "soon")
    assert done.returncode == 1
    assert b"since='soon' (accepted: 500ms, 1s, 5m" in done.stderr


# ---- changes ----


def test_changes_reach_the_supervisor_and_are_reported(cli: Cli, served: Served) -> None:
    assert cli("stop", "web", "--services=store,web").stdout == b"web: stopped\nstore: stopped\n"
    assert cli("start", "web").stdout == b"web: running (pid 4243)\n"
    assert cli("restart", "--services", "web , store").returncode == 0
    assert cli("reset", "web").returncode == 0
    assert cli("stop", "--all").stdout == b"store: stopped\nweb: stopped\nspare: stopped\n"
    assert served.operations.calls == [
        ("stop", ("web", "store")),
        ("start", ("web",)),
        ("restart", ("web", "store")),
        ("reset", ("web",)),
        ("stop", ()),
    ]


def test_a_change_as_json_has_the_shape_of_status(cli: Cli, served: Served) -> None:
    answer = json.loads(cli("restart", "web", "--json").stdout)
    assert answer == json.loads(json.dumps({"services": [served.operations.infos["web"].to_json()]}))


# ---- status ----


def test_status_as_json_is_the_contract_and_nothing_else(cli: Cli, served: Served) -> None:
    everything = json.loads(cli("status", "--json").stdout)
    assert list(everything) == ["services"]
    assert [info["name"] for info in everything["services"]] == ["store", "web", "spare"]
    one = json.loads(cli("status", "web", "--json").stdout)
    assert one == everything["services"][1] == json.loads(json.dumps(make_info("web").to_json()))


def test_status_for_people_has_no_colour_in_a_pipe(cli: Cli, served: Served) -> None:
    output = cli("status").stdout.decode()
    assert output.splitlines()[0].split() == [
        *("NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "CPU", "MEMORY", "LIMITS"),
    ]
    assert "store, web, spare: not enforced: cpu_max, memory_max (cpu, memory: bound to cgroup v1" in output
    assert "\x1b" not in output
    assert "nofile" in cli("status", "web").stdout.decode()


# ---- logs ----


def test_logs_give_back_the_exact_bytes(cli: Cli, served: Served) -> None:
    written = [b"plain", b"", "ümläut €".encode(), bytes(range(1, 10)) + bytes(range(11, 256)), b"\xff\xfe"]
    served.operations.lines = [make_line(each.decode("utf-8", "surrogateescape")) for each in written]
    assert cli("logs", "web").stdout == b"".join(each + b"\n" for each in written)


def test_logs_as_json_are_the_lines_of_the_log(cli: Cli, served: Served) -> None:
    served.operations.lines = [make_line("one"), make_line("zwei \udcff", "stderr", partial=True)]
    assert cli("logs", "web", "--json").stdout == b"".join(served.operations.lines)


def test_log_options_reach_the_reader(cli: Cli, served: Served) -> None:
    cli("logs", "web", "--tail", "3", "--stream", "stderr", "--since", "1h")
    (query,) = served.operations.queries
    assert (query.tail, query.stream) == (3, "stderr")
    assert query.since is not None


def test_followed_logs_begin_with_the_newest_ten(environment: dict[str, str], served: Served) -> None:
    served.operations.lines = [make_line("one")]
    with _start(environment, "logs", "web", "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        served.operations.lines = [make_line("one"), make_line("two")]
        served.call(served.operations.announce)
        assert process.stdout.readline() == b"two\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None and process.stderr.read() == b""
    assert served.operations.queries[0].tail == 10


# ---- events ----


def test_events_for_people_and_for_programs(cli: Cli, served: Served) -> None:
    served.operations.stored = [
        make_event(1),
        make_event(
            2, "store", from_state=None, to_state=None, kind="limit", reason="unknown", detail="a\x1b[2J\nb"
        ),
    ]
    assert cli("events").stdout.decode() == (
        "2030-01-31 12:00:01 web: running -> restarting (signalled: killed by SIGKILL, run 4)\n"
        "2030-01-31 12:00:02 store: limit: a\\x1b[2J\\nb (run 4)\n"
    )
    assert cli("events", "web", TZ="Asia/Tokyo").stdout.startswith(b"2030-01-31 21:00:01 web: ")
    lines = cli("events", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [each.to_json() for each in served.operations.stored]
    assert cli("events", "--tail", "1", "--json").stdout.splitlines() == lines[1:]


def test_followed_events_come_as_they_happen(environment: dict[str, str], served: Served) -> None:
    served.operations.stored = [make_event(1)]
    with _start(environment, "events", "--follow", "--tail", "0", "--json") as process:
        assert process.stdout is not None
        eventually(lambda: served.operations.followers == 1, "it follows")
        served.operations.stored.append(make_event(2))
        served.call(served.operations.announce)
        assert json.loads(process.stdout.readline())["id"] == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


# ---- why ----


def test_why_tells_of_the_newest_runs_or_of_one(cli: Cli, served: Served) -> None:
    for run_id in range(1, 6):
        for to, run in (("waiting", run_id - 1), ("starting", run_id), ("running", run_id)):
            number = len(served.operations.stored) + 1
            event = make_event(number, run_id=run, from_state="x", to_state=to, detail=f"run {run_id}")
            served.operations.stored.append(event)
    text = cli("why", "web").stdout.decode()
    assert [line for line in text.splitlines() if line.startswith("run ")] == ["run 3", "run 4", "run 5"]
    assert text.startswith("earlier: `blackhole-cg events web`")
    assert "now: running for 1m30s\nnext: nothing is due" in text
    found = json.loads(cli("why", "web", "--run", "2", "--json").stdout)
    assert [(run["run_id"], len(run["events"])) for run in found["runs"]] == [(2, 3)]
    assert found["now"]["service"]["name"] == found["service"] == "web"
    done = cli("why", "web", "--run", "9")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"blackhole-cg: nothing is stored of run 9 of 'web' (there is: 1 to 5)\n"


# ---- samples ----


def test_samples_are_lines_as_they_are_taken(environment: dict[str, str], served: Served) -> None:
    with _start(environment, "monitor") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().decode() == (
            "2030-01-31 12:00:00 web: CPU 12%, memory 61.2M (12% of the limit), pids 3, read 0B/s, "
            "write 4.1K/s\n"
        )
        served.operations.taken.append({"service": "store", **make_sample(cpu_percent=None)})
        served.call(served.operations.announce)
        assert process.stdout.readline().startswith(b"2030-01-31 12:00:00 store: CPU -, memory 61.2M")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == b""


def test_samples_for_programs_are_the_objects_of_the_api(cli: Cli, served: Served) -> None:
    assert [json.loads(line) for line in cli("monitor", "--once", "--json").stdout.splitlines()] == [
        {"service": "web", **make_sample()}
    ]
    lines = cli("monitor", "web", "spare", "web", "--once").stdout.decode().splitlines()
    assert len(lines) == 2
    assert lines[1] == "spare: no sample: it does not run, or not for long enough"


def test_a_reader_of_samples_may_leave(environment: dict[str, str], served: Served) -> None:
    with _start(environment, "monitor", "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        served.operations.taken.append({"service": "web", **make_sample()})
        served.call(served.operations.announce)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


# ---- output that goes away, and terminals ----


def test_a_reader_that_has_seen_enough_is_no_failure(environment: dict[str, str], served: Served) -> None:
    served.operations.lines = [make_line("x" * 1000)] * 2000
    with _start(environment, "logs", "web") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_terminal_gets_colours_marks_and_lines_that_fit(
    environment: dict[str, str], served: Served
) -> None:
    served.operations.lines = [make_line("fine"), make_line("oops", "stderr")]
    served.operations.infos["web"] = make_info(
        "a-service-with-a-name-that-is-rather-long", health="unhealthy"
    )
    status = _on_terminal(environment, "status")
    assert "\x1b[32mrunning\x1b[0m" in status
    plain = _on_terminal({**environment, "NO_COLOR": "1"}, "status")
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert _on_terminal(environment, "logs", "web").splitlines() == ["fine", "\x1b[31m| \x1b[0moops"]
    assert _on_terminal({**environment, "NO_COLOR": "1"}, "logs", "web").splitlines() == ["fine", "| oops"]
    assert _on_terminal(environment, "logs", "web", "--stream", "stderr").splitlines() == ["fine", "oops"]


def _start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
    )


def _on_terminal(environment: dict[str, str], *arguments: str) -> str:
    """What a command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    ) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            output += piece
        assert process.wait(30) == 0, output
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


# ---- metrics ----


def test_metrics_are_printed_as_they_are_fetched(cli: Cli, served: Served) -> None:
    done = cli("metrics")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'\nblackhole_processes{state="running"} 3.0\n' in done.stdout
    assert done.stdout.endswith(b"\n")
