"""What a service finds around itself in its very first act, told by itself and compared with what was asked.

The supervisor is started in an untidy place: signals ignored and blocked, inheritable capabilities, a umask,
an oom_score_adj, a low RLIMIT_NOFILE and an open descriptor of its parent's. Services must see none of it.
"""

from __future__ import annotations

import grp
import os
import pwd
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import config, shell
from tests.support.live import Live, cgroup_mount

pytestmark = [pytest.mark.needs_kernel, pytest.mark.timeout(300)]

UNTIDY = (
    "env", "--ignore-signal=USR1", "--block-signal=USR2",
    "setpriv", "--inh-caps=+all",
    "choom", "-n", "50", "--",
    "prlimit", "--nofile=1024:4096",
    "sh", "-c", 'umask 077; exec 9</dev/null; exec "$@"', "sh",
)  # fmt: skip

# Builtins alone: the shell that exec started is the process that looks, and nothing ran before it.
SCRIPT = """
show() { while IFS= read -r line; do echo "$1: $line"; done <"$2"; }
IFS=: read -r zero none group </proc/self/cgroup
for name in cgroup status limits stat oom_score_adj; do show $name /proc/self/$name; done
for name in cgroup.procs cpu.max cpu.weight cpuset.cpus memory.max memory.high memory.low memory.oom.group \
            io.weight pids.max pids.current; do
    show $name MOUNT$group/$name
done
for path in /proc/self/fd/*; do [ -e "$path" ] && echo "fd: $path"; done
printf 'umask: '; umask
printf 'directory: '; pwd -P
"""

LIMITS = {
    "cpu_percent": 150, "cpu_weight": 300, "cpuset_cpus": "0",
    "memory_mb": 64, "memory_low": "8M", "io_weight": 250, "processes": 40, "pids_max": 30, "open_files": 321,
    "rlimits": {
        "core": 0, "cpu": "1h", "data": "1G", "fsize": "2G", "memlock": "64K", "msgqueue": "512K", "nice": 5,
        "rss": "1G", "rtprio": 3, "rttime": 200_000, "sigpending": 99, "stack": "4M", "as": "3G",
    },
}  # fmt: skip
IN_CGROUP_FILES = {
    "cpu.max": "150000 100000", "cpu.weight": "300", "cpuset.cpus": "0",
    "memory.max": str(64 * 2**20), "memory.low": str(8 * 2**20), "memory.oom.group": "1",
    "io.weight": "default 250", "pids.max": "30", "pids.current": "1",
}  # fmt: skip
IN_PROC_LIMITS = {
    "Max processes": 40, "Max open files": 321,
    "Max core file size": 0, "Max cpu time": 3600, "Max data size": 2**30, "Max file size": 2**31,
    "Max locked memory": 2**16, "Max msgqueue size": 2**19, "Max nice priority": 5, "Max resident set": 2**30,
    "Max realtime priority": 3, "Max realtime timeout": 200_000, "Max pending signals": 99,
    "Max stack size": 2**22, "Max address space": 3 * 2**30,
}  # fmt: skip

NET_BIND_SERVICE = 1 << 10
CHOWN_AND_KILL = 1 << 0 | 1 << 5
BPF = 1 << 39
Report = dict[str, list[str]]

# Each service: its keys; its user and group, None for the supervisor's; its capabilities, None for all.
SERVICES: dict[str, tuple[dict[str, Any], str | None, str | None, int | None]] = {
    "root": ({}, None, None, None),
    "root-with-two": ({"security": {"capabilities": ["CHOWN", "CAP_KILL"]}}, None, None, CHOWN_AND_KILL),
    "root-without": ({"security": {"capabilities": []}}, None, None, 0),
    "user": ({"user": "tester"}, "tester", "tester", 0),
    "user-without": ({"user": "tester", "security": {"capabilities": []}}, "tester", "tester", 0),
    "user-with-one": (
        {"user": "tester", "security": {"capabilities": ["NET_BIND_SERVICE"]}},
        "tester", "tester", NET_BIND_SERVICE,
    ),
    "user-with-new-one": (
        {"user": "tester", "security": {"capabilities": ["BPF"]}},
        "tester", "tester", BPF,
    ),
    "member-of-groups": ({"user": "postgres"}, "postgres", "postgres", 0),
    "other-group": (
        {"user": "tester", "group": "www-data", "umask": "027", "oom_score_adj": 500,
         "security": {"no_new_privileges": False}},
        "tester", "www-data", 0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    mount = cgroup_mount()
    missing = [each for each in ("tester", "postgres") if not any(each == e.pw_name for e in pwd.getpwall())]
    if mount is None or missing:
        pytest.skip(f"needs cgroup v2 and the users tester and postgres; missing: {missing or 'cgroup v2'}")
    script = SCRIPT.replace("MOUNT", str(mount)).replace("$", "$$")  # `$$` in a configuration is one `$`
    services = {
        name: shell(script, type="oneshot", data_dir=f"data-{name}", resources=LIMITS, **keys)
        for name, (keys, *_) in SERVICES.items()
    }
    services["plain"] = shell(script, type="oneshot", data_dir="data-plain")
    with tempfile.TemporaryDirectory(prefix="bh-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # every user must reach its data_dir
        live = Live(directory, config(services, isolation="required", resource_limits={}))
        try:
            yield live.start(UNTIDY).ready()
        finally:
            live.close()


@pytest.fixture(scope="module")
def reports(live: Live) -> dict[str, Report]:
    """What each service said, by the file or the fact it is about."""
    for name in (*SERVICES, "plain"):
        live.until(name, "completed", 60)
    found: dict[str, Report] = {}
    for name in (*SERVICES, "plain"):
        found[name] = defaultdict(list)
        for line in live.log_lines(name):
            assert line["stream"] == "stdout", line["message"]
            subject, _, text = line["message"].partition(": ")
            found[name][subject].append(text)
    return found


def table(lines: list[str]) -> dict[str, str]:
    """The lines of a file such as /proc/self/status, by their first word."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def rlimits(lines: list[str]) -> dict[str, tuple[str, str]]:
    """The lines of /proc/self/limits: name, then soft and hard limit in columns of fixed width."""
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines[1:]}


def all_capabilities() -> int:
    return int(table(Path("/proc/self/status").read_text().splitlines())["CapBnd"], 16)


@pytest.mark.parametrize("name", SERVICES)
def test_user_group_and_supplementary_groups(reports, name):
    _, user, group, _ = SERVICES[name]
    uid = pwd.getpwnam(user).pw_uid if user else os.geteuid()
    gid = grp.getgrnam(group).gr_gid if group else os.getegid()
    groups = os.getgrouplist(user, gid) if user else os.getgroups()
    status = table(reports[name]["status"])
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(gid)] * 4
    assert sorted(map(int, status["Groups"].split())) == sorted(groups)
    if name == "member-of-groups":
        assert len(groups) > 1, "or this shows nothing"


@pytest.mark.parametrize("name", SERVICES)
def test_capabilities_and_no_new_privileges(reports, name):
    keys, user, _, capabilities = SERVICES[name]
    security = keys.get("security", {})
    status = table(reports[name]["status"])
    assert status["NoNewPrivs"] == ("1" if security.get("no_new_privileges", True) else "0")
    sets = {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    expected = all_capabilities() if capabilities is None else capabilities
    assert (sets["CapPrm"], sets["CapEff"]) == (expected, expected)
    assert sets["CapAmb"] == (expected if user else 0), "root needs no ambient set"
    if "capabilities" in security:
        assert sets["CapBnd"] == expected
        assert sets["CapInh"] & ~expected == 0


@pytest.mark.parametrize("name", SERVICES)
def test_its_cgroup_and_every_limit_in_it(live, reports, name):
    report = reports[name]
    assert report["cgroup"] == [f"0::/{live.cgroup_root.name}/{name}"]
    assert report["cgroup.procs"] == [table(report["status"])["Pid"]]
    assert {file: report[file] for file in IN_CGROUP_FILES} == {
        file: [text] for file, text in IN_CGROUP_FILES.items()
    }
    assert int(report["memory.high"][0]) == pytest.approx(0.9 * 64 * 2**20, abs=4096)
    assert table(report["status"])["Cpus_allowed_list"] == "0"


@pytest.mark.parametrize("name", SERVICES)
def test_every_resource_limit_of_the_process(reports, name):
    found = rlimits(reports[name]["limits"])
    expected = {key: (str(value), str(value)) for key, value in IN_PROC_LIMITS.items()}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", SERVICES)
def test_session_signals_files_and_places(live, reports, name):
    report, (keys, *_) = reports[name], SERVICES[name]
    status = table(report["status"])
    group, session, terminal = report["stat"][0].rpartition(") ")[2].split()[2:5]
    assert (group, session, terminal) == (status["Pid"], status["Pid"], "0")
    assert status["PPid"] == str(live.pid)
    assert {int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigPnd", "ShdPnd")} == {0}
    assert report["fd"] == [f"/proc/self/fd/{number}" for number in (0, 1, 2)]
    assert int(report["umask"][0], 8) == int(keys.get("umask", "022"), 8)
    assert report["directory"] == [str((live.directory / f"data-{name}").resolve())]
    assert report["oom_score_adj"] == [str(keys.get("oom_score_adj", 0))]


def test_a_service_without_wishes_has_the_defaults_and_the_descriptors_of_outside(reports):
    report = reports["plain"]
    assert (report["cpu.max"], report["memory.max"]) == (["10000 100000"], [str(512 * 2**20)])
    assert rlimits(report["limits"])["Max open files"] == ("1024", "4096"), "the supervisor raised its own"
    assert report["oom_score_adj"] == ["0"]
    assert report["fd"] == [f"/proc/self/fd/{number}" for number in (0, 1, 2)]
