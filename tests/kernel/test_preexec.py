"""For each step between fork and exec: what makes just it fail, the error it gives, and that nothing is left.

What the kernel never refuses (a session, a name, copies of open descriptors, no_new_privs, a umask, a signal
mask) is made to fail through the step table, which a host takes as an argument.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blackhole_cg.core.spec import ResourceLimits, SecuritySpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.preexec import Descriptors, Preparation, Step, capability_number, preexec_steps
from tests.kernel.machine import Machine, Traces, in_time, new_root_name, open_machine

REPOSITORY = Path(__file__).parents[2]


def assert_fails_cleanly(machine: Machine, spec: Any, text: str) -> None:
    """Twice, so that what a first launch makes on purpose (FIFOs, the data directory) is there before."""
    for _ in range(2):
        before = Traces.take(machine.root)
        assert in_time(machine.failure(spec)) == f"cannot start '{spec.name}': {text}"
        assert Traces.take(machine.root) == before
    assert not list((machine.base / "run").glob("config/*"))


def steps_with(phrase: str, action: Callable[[], object]) -> Callable[..., tuple[Step, ...]]:
    """The usual table with one step's action replaced."""

    def table(prepared: Preparation, descriptors: Descriptors) -> tuple[Step, ...]:
        usual = preexec_steps(prepared, descriptors)
        assert any(step.phrase == phrase for step in usual), [step.phrase for step in usual]
        return tuple(Step(phrase, action) if step.phrase == phrase else step for step in usual)

    return table


def refuse() -> None:
    raise OSError(errno.EPERM, "refused")


def test_the_order_is_the_contracts(machine: Machine) -> None:
    phrases: list[str] = []

    def table(prepared: Preparation, descriptors: Descriptors) -> tuple[Step, ...]:
        steps = preexec_steps(prepared, descriptors)
        phrases.extend(step.phrase for step in steps)
        return steps

    spec = machine.spec(
        "/bin/true",
        name="web",
        user="nobody",
        limits=ResourceLimits(rlimits={"nofile": 100, "core": 0}),
        oom_score_adj=10,
        security=SecuritySpec(no_new_privileges=True, capabilities=("CHOWN",)),
    )
    shutil.rmtree(machine.base / "run")
    with open_machine(machine.base, make_steps=table) as other:
        in_time(other.output(spec))
    assert phrases == [
        "begin a session and process group of its own",
        "name the process",
        "connect stdin, stdout and stderr",
        "join its cgroup",
        "wait until it is recorded",
        "set oom_score_adj to 10",  # only opened here: the rlimits could forbid that
        "set RLIMIT_NOFILE to 100",
        "set RLIMIT_CORE to 0",
        "set oom_score_adj to 10",
        "limit capabilities to CHOWN",
        "set no_new_privs",
        "set groups to 65534",
        "change to group 65534",
        "change to user nobody (65534)",
        "keep capabilities CHOWN",
        "set umask to 0022",
        f"enter working directory {spec.data_dir}",
        "reset signals",
        "execute /bin/true",
    ]


@pytest.mark.parametrize(
    "phrase",
    [
        "begin a session and process group of its own",
        "name the process",
        "connect stdin, stdout and stderr",
        "set no_new_privs",
        "set umask to 0022",
        "reset signals",
    ],
)
def test_steps_that_never_fail_by_themselves(real_base: Path, phrase: str) -> None:
    with open_machine(real_base, make_steps=steps_with(phrase, refuse)) as machine:
        config = str(machine.base / "run/config/web.json")
        spec = machine.spec("/bin/true", name="web", handed_config="{}", config_path=config)
        spec = replace(spec, security=SecuritySpec(no_new_privileges=True))
        assert_fails_cleanly(machine, spec, f"{phrase}: Operation not permitted")


def test_joining_fails_below_a_threaded_root(machine: Machine) -> None:
    enabled = (machine.root / "cgroup.subtree_control").read_text().split()
    (machine.root / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in enabled) or "\n")
    (machine.root / "cgroup.type").write_text("threaded")
    assert_fails_cleanly(machine, machine.spec("/bin/true"), "join its cgroup: Operation not supported")


def test_no_room_for_another_cgroup(machine: Machine) -> None:
    (machine.root / "cgroup.max.descendants").write_text("0")
    spec = machine.spec("/bin/true", name="web")
    text = f"create its cgroup /{machine.root.name}/web: Resource temporarily unavailable"
    assert_fails_cleanly(machine, spec, text)


def test_rlimit_above_what_any_process_may_have(real_base: Path) -> None:
    with open_machine(real_base, Isolation.REQUIRED) as machine:
        spec = machine.spec("/bin/true", name="web", limits=ResourceLimits(rlimits={"nofile": 2**31}))
        assert_fails_cleanly(machine, spec, "set RLIMIT_NOFILE to 2147483648: Operation not permitted")
        (problem,) = list(map(str, machine.host.problems(spec)))
        assert re.fullmatch(r"web: nofile 2147483648: (fs.nr_open is|the hard limit here is) \d+ .*", problem)


def test_the_second_rlimit_is_named_when_the_first_is_fine(real_base: Path) -> None:
    with open_machine(real_base, Isolation.REQUIRED) as machine:
        limits = ResourceLimits(rlimits={"core": 0, "nofile": "max"})
        assert_fails_cleanly(
            machine,
            machine.spec("/bin/true", limits=limits),
            "set RLIMIT_NOFILE to max: Operation not permitted",
        )


def test_working_directory_out_of_the_users_reach(machine: Machine) -> None:
    locked = machine.base / "locked"
    locked.mkdir(0o700)
    spec = machine.spec("/bin/true", user="nobody", data_dir=str(locked / "web"))
    assert_fails_cleanly(machine, spec, f"enter working directory {locked}/web: Permission denied")


def test_working_directory_that_vanishes_between(real_base: Path) -> None:
    def vanish() -> None:
        os.rmdir(real_base / "data/web")
        os.chdir(real_base / "data/web")

    phrase = f"enter working directory {real_base}/data/web"
    with open_machine(real_base, make_steps=steps_with(phrase, vanish)) as machine:
        spec = machine.spec("/bin/true", name="web")
        assert_fails_cleanly(machine, spec, f"{phrase}: No such file or directory")


def test_data_dir_that_is_a_file(machine: Machine) -> None:
    in_the_way = machine.base / "file"
    in_the_way.write_text("")
    spec = machine.spec("/bin/true", data_dir=str(in_the_way))
    assert_fails_cleanly(machine, spec, f"create data directory {in_the_way}: File exists")


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"#!/bin/sh\n", 0o644, "Permission denied"),
        (b"neither script nor program\n", 0o755, "Exec format error"),
        (b"#!/nonexistent/interpreter\n", 0o755, "No such file or directory"),
        (b"\x7fELF and then nothing", 0o755, "Exec format error"),
        (None, 0, "No such file or directory"),
    ],
)
def test_programs_that_cannot_be_executed(
    machine: Machine, content: bytes | None, mode: int, reason: str
) -> None:
    program = machine.base / "program"
    if content is not None:
        program.write_bytes(content)
        program.chmod(mode)
    assert_fails_cleanly(machine, machine.spec(str(program)), f"execute {program}: {reason}")


def test_a_program_that_is_nowhere_on_the_path(machine: Machine) -> None:
    spec = machine.spec("nosuchprogram")
    assert_fails_cleanly(machine, spec, "find 'nosuchprogram': no such program on its PATH (/usr/bin:/bin)")


def test_a_nul_byte_is_found_before_the_fork(machine: Machine) -> None:
    spec = machine.spec("/bin/echo", "a\0b")
    text = "prepare its arguments and environment: a NUL byte in 'a\\x00b'"
    assert_fails_cleanly(machine, spec, text)
    spec = machine.spec("/bin/true", data_dir="a\0b")
    assert_fails_cleanly(machine, spec, text)


def test_a_bad_environment_name_is_found_before_the_fork(machine: Machine) -> None:
    spec = machine.spec("/bin/true", environment={"A=B": "c"})
    assert_fails_cleanly(machine, spec, "prepare its environment: a name is empty or contains '='")


def test_an_unknown_capability_is_named(machine: Machine) -> None:
    spec = machine.spec("/bin/true", security=SecuritySpec(capabilities=("FLY",)))
    assert_fails_cleanly(machine, spec, "find capability 'FLY': no capability is named FLY")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_something_else_in_the_place_of_a_fifo(machine: Machine, name: str) -> None:
    (machine.base / "run/fifo").mkdir()
    (machine.base / f"run/fifo/web.{name}").write_text("")
    spec = machine.spec("/bin/true", name="web")
    assert_fails_cleanly(machine, spec, f"open the FIFO for its {name}: File exists")


def test_a_configuration_that_cannot_be_written(machine: Machine) -> None:
    path = machine.base / "run/config/web.json"
    path.mkdir(parents=True)
    spec = machine.spec("/bin/true", name="web", handed_config="{}", config_path=str(path))
    for _ in range(2):
        before = Traces.take(machine.root)
        text = in_time(machine.failure(spec))
        assert text == f"cannot start 'web': write its configuration to {path}: Is a directory"
        assert Traces.take(machine.root) == before
    assert [entry.name for entry in path.parent.iterdir()] == ["web.json"]


def test_a_child_that_dies_before_exec(real_base: Path) -> None:
    suicide = steps_with("reset signals", lambda: os.kill(os.getpid(), signal.SIGKILL))
    with open_machine(real_base, make_steps=suicide) as machine:
        text = "reach exec: the child ended before it (killed by SIGKILL)"
        assert_fails_cleanly(machine, machine.spec("/bin/true"), text)


def test_any_exception_in_the_child_stays_in_the_child(real_base: Path) -> None:
    def run_out() -> None:
        raise MemoryError

    with open_machine(real_base, make_steps=steps_with("reset signals", run_out)) as machine:
        assert_fails_cleanly(machine, machine.spec("/bin/true"), "reset signals: Cannot allocate memory")


def test_a_signal_between_fork_and_exec_ends_the_child_and_runs_no_handler(real_base: Path) -> None:
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    poke = steps_with("set umask to 0022", lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        with open_machine(real_base, make_steps=poke) as machine:
            text = "reach exec: the child ended before it (killed by SIGUSR1)"
            assert_fails_cleanly(machine, machine.spec("/bin/true"), text)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == []


def test_killing_a_run_that_hangs_before_exec(real_base: Path) -> None:
    with open_machine(real_base, make_steps=steps_with("set umask to 0022", signal.pause)) as machine:

        async def scenario() -> None:
            run = machine.host.launch(machine.spec("/bin/true"), 1)
            assert run.populated()
            run.kill()
            with pytest.raises(Exception, match="reach exec: the child ended before it"):
                await run.executed()

        in_time(scenario())


def test_other_threads_forbid_a_launch(machine: Machine) -> None:
    import threading

    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="intruder")
    thread.start()
    try:
        text = (
            "fork: this process has more than one thread (MainThread, intruder), which makes forking unsafe"
        )
        before = Traces.take(machine.root)
        assert (
            in_time(machine.failure(machine.spec("/bin/true", name="web"))) == f"cannot start 'web': {text}"
        )
        assert Traces.take(machine.root) == before
    finally:
        release.set()
        thread.join()


def constrained(base: Path, wishes: dict[str, object], *setpriv: str) -> dict[str, Any]:
    """Launch in a process from which setpriv has taken something away."""
    command = [
        "setpriv",
        *setpriv,
        sys.executable,
        "-m",
        "tests.kernel.constrained",
        str(base),
        json.dumps(wishes),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("wishes", "setpriv", "text"),
    [
        ({"user": "nobody"}, ["--bounding-set=-setgid"], "set groups to 65534"),
        ({"user": "nobody"}, ["--groups=65534", "--bounding-set=-setgid"], "change to group 65534"),
        ({"user": "nobody"}, ["--bounding-set=-setuid"], "change to user nobody (65534)"),
        ({"capabilities": ["CHOWN"]}, ["--bounding-set=-setpcap"], "limit capabilities to CHOWN"),
        (
            {"user": "nobody", "capabilities": ["SYS_BOOT"]},
            ["--bounding-set=-sys_boot"],
            "keep capabilities SYS_BOOT",
        ),
        ({"rlimits": {"memlock": "max"}}, ["--bounding-set=-sys_resource"], "set RLIMIT_MEMLOCK to max"),
    ],
)
def test_steps_that_need_a_privilege(
    real_base: Path, wishes: dict[str, object], setpriv: list[str], text: str
) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to take a capability away with")
    found = constrained(real_base, wishes, *setpriv)
    assert found["error"] == f"cannot start 'web': {text}: Operation not permitted"
    assert found["left"] is False


def test_oom_score_below_what_is_allowed(real_base: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to take a capability away with")
    wishes: dict[str, object] = {"oom_score_adj": -500}
    found = constrained(real_base, dict(wishes), "--bounding-set=-sys_resource")
    assert found["error"] == "cannot start 'web': set oom_score_adj to -500: Permission denied"
    assert found["left"] is False
    assert found["problems"] == [
        "web: oom_score_adj -500: it is 0 here and lowering it needs CAP_SYS_RESOURCE"
    ]


def test_an_ordinary_user_supervises_without_cgroups(real_base: Path) -> None:
    nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    reach = subprocess.run(
        ["setpriv", *nobody, sys.executable, "-c", "import prctl, tests.kernel.machine"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if reach.returncode != 0:
        pytest.skip("an ordinary user cannot reach this interpreter and its packages")
    shutil.chown(real_base, "nobody")
    wishes: dict[str, object] = {
        "isolation": "best_effort",
        "no_new_privileges": True,
        "capabilities": [],
        "rlimits": {"nofile": 64},
    }
    found = constrained(real_base, wishes, *nobody)
    assert found["error"] is None
    assert found["limits"]["nofile"]["effective"] == 64
    assert found["problems"][0].startswith("web: no cgroup can be made: no permission to make cgroups in ")


def test_a_wait_for_exec_ends_when_the_run_is_closed_first(real_base: Path) -> None:
    with open_machine(real_base, make_steps=steps_with("set umask to 0022", signal.pause)) as machine:

        async def scenario() -> None:
            run = machine.host.launch(machine.spec("/bin/true"), 1)
            waiting = asyncio.create_task(run.executed())
            await asyncio.sleep(0)
            run.kill()
            await run.exited()
            await asyncio.gather(run.close(), run.close())
            with pytest.raises(SpawnError, match="reach exec: the child ended before it"):
                await waiting

        in_time(scenario())


def test_best_effort_starts_without_the_oom_score_and_says_so(real_base: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to take a capability away with")
    wishes: dict[str, object] = {"oom_score_adj": -500, "isolation": "best_effort"}
    found = constrained(real_base, wishes, "--bounding-set=-sys_resource")
    assert found["error"] is None
    assert found["limits"]["oom_score_adj"] == {
        "requested": -500,
        "effective": 0,
        "enforced": False,
        "reason": "it is 0 here and lowering it needs CAP_SYS_RESOURCE",
    }


def test_the_cgroup_root_cannot_be_made(real_base: Path) -> None:
    from blackhole_cg.errors import CgroupError
    from blackhole_cg.kernel.host import HostOptions, LinuxHost

    mount = Path(LinuxHost(HostOptions(real_base)).facts.cgroup_mount or "")
    parent = mount / new_root_name()
    parent.mkdir()
    (parent / "cgroup.max.descendants").write_text("0")
    try:
        host = LinuxHost(HostOptions(real_base, Isolation.REQUIRED, str(parent / "inner")))
        with pytest.raises(
            CgroupError, match=f"cannot create {parent}/inner: Resource temporarily unavailable"
        ):
            host.open()
        lenient = LinuxHost(HostOptions(real_base, Isolation.BEST_EFFORT, str(parent / "inner")))
        lenient.open()
        assert lenient.facts.cgroup_root is None
        assert (
            lenient.facts.cgroup_problem == f"cannot create {parent}/inner: Resource temporarily unavailable"
        )
        lenient.close()
    finally:
        parent.rmdir()


@pytest.mark.parametrize("name", ["EFFECTIVE", "NO_SUCH", "", "net_admin"])
def test_only_capabilities_have_numbers(name: str) -> None:
    with pytest.raises(ValueError, match="no capability is named"):
        capability_number(name)


def test_capability_numbers_are_the_kernels() -> None:
    names = ("CHOWN", "NET_BIND_SERVICE", "SYS_RESOURCE", "CHECKPOINT_RESTORE")
    assert [capability_number(name) for name in names] == [0, 10, 24, 40]
