"""What a service finds itself to be when it starts: real processes, looked at from inside and outside."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import prctl
import pytest

from blackhole_cg.core.facts import ExitStatus
from blackhole_cg.core.spec import ResourceLimits, SecuritySpec
from blackhole_cg.core.words import Isolation, Stream
from blackhole_cg.errors import SpawnError
from blackhole_cg.kernel.scope import started_ticks
from tests.kernel.machine import (
    LIMITS,
    Machine,
    Traces,
    descriptors_left,
    eventually,
    in_time,
    open_machine,
    read_all,
    sleeper,
    stop,
)

SELF_PORTRAIT = """
import json, os, signal
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
fds = "/proc/self/fd/"
print(json.dumps({
    "descriptors": sorted(int(name) for name in os.listdir(fds) if os.path.exists(fds + name)),
    "stdin": os.readlink("/proc/self/fd/0"),
    "stdout": os.readlink("/proc/self/fd/1"),
    "stderr": os.readlink("/proc/self/fd/2"),
    "blocking": os.get_blocking(1),
    "sid": os.getsid(0), "pgid": os.getpgrp(), "pid": os.getpid(),
    "blocked": status["SigBlk"], "ignored": status["SigIgn"],
    "environment": dict(os.environ), "cwd": os.getcwd(), "cgroup": open("/proc/self/cgroup").read(),
    "umask": status["Umask"].strip(), "oom_score_adj": open("/proc/self/oom_score_adj").read().strip(),
}))
"""


def parse_status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_a_service_sees_a_clean_world(machine: Machine) -> None:
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    handled = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        # -I -S keep the interpreter from opening anything; -B from writing; its SIGPIPE handling is its own.
        spec = machine.spec(sys.executable, "-ISBc", SELF_PORTRAIT, oom_score_adj=300, umask=0o027)
        status, text = in_time(machine.output(spec))
    finally:
        signal.signal(signal.SIGUSR1, handled)
        signal.signal(signal.SIGUSR2, ignored)
    assert status == ExitStatus(code=0)
    seen = json.loads(text)
    fifo = machine.base / "run/fifo"
    assert seen["descriptors"] == [0, 1, 2]
    assert seen["stdin"] == "/dev/null"
    assert seen["stdout"] == str(fifo / f"{spec.name}.stdout")
    assert seen["stderr"] == str(fifo / f"{spec.name}.stderr")
    assert seen["blocking"] is True
    assert seen["sid"] == seen["pgid"] == seen["pid"]
    assert int(seen["blocked"], 16) == 0
    python_itself = (1 << signal.SIGPIPE - 1) | (1 << signal.SIGXFSZ - 1)
    assert int(seen["ignored"], 16) & ~python_itself == 0
    assert {**seen["environment"], "LC_CTYPE": None} == {**spec.environment, "LC_CTYPE": None}
    assert seen["cwd"] == spec.data_dir
    assert seen["umask"] == "0027"
    assert seen["oom_score_adj"] == "300"
    assert seen["cgroup"].splitlines()[-1].endswith(f"/{machine.root.name}/{spec.name}")


def test_a_services_user_may_read_its_limits_whatever_the_umask_of_the_supervisor(real_base: Path) -> None:
    before = os.umask(0o077)
    try:
        with open_machine(real_base) as machine:
            limits = f"{machine.root}/web/cgroup.procs"
            spec = machine.spec("/bin/cat", limits, name="web", user="nobody")
            status, text = in_time(machine.output(spec))
    finally:
        os.umask(before)
    assert status == ExitStatus(code=0)
    assert text.strip().isdecimal()


def test_descriptors_that_the_supervisor_inherited_stop_there(real_base: Path) -> None:
    careless = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(careless, True)
    try:
        with open_machine(real_base) as machine:
            _, text = in_time(machine.output(machine.sh("ls -l /proc/$$/fd")))
    finally:
        os.close(careless)
    assert "/dev/zero" not in text
    assert "/dev/null" in text


def test_ignored_signals_are_back_to_default(machine: Machine) -> None:
    """Python ignores SIGPIPE in the supervisor; a service must not inherit that."""
    status, text = in_time(machine.output(machine.spec("cat", "/proc/self/status")))
    assert status.code == 0
    seen = parse_status(text)
    assert int(seen["SigIgn"], 16) == 0
    assert int(seen["SigBlk"], 16) == 0


def test_root_without_wishes_keeps_what_it_has(machine: Machine) -> None:
    _, text = in_time(machine.output(machine.spec("cat", "/proc/self/status")))
    seen, ours = parse_status(text), parse_status(Path("/proc/self/status").read_text())
    for key in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs"):
        assert seen[key] == ours[key], key


def test_user_group_and_groups_are_taken_on(machine: Machine) -> None:
    spec = machine.spec("cat", "/proc/self/status", user="nobody", group="daemon")
    _, text = in_time(machine.output(spec))
    seen = parse_status(text)
    assert seen["Uid"].split() == ["65534"] * 4
    assert seen["Gid"].split() == ["1"] * 4
    assert seen["Groups"].split() == ["1"]
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == 0


@pytest.mark.parametrize("user", [None, "nobody"])
def test_no_capabilities_means_none_for_good(machine: Machine, user: str | None) -> None:
    security = SecuritySpec(no_new_privileges=True, capabilities=())
    _, text = in_time(machine.output(machine.spec("cat", "/proc/self/status", user=user, security=security)))
    seen = parse_status(text)
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen[key], 16) == 0, key
    assert seen["NoNewPrivs"] == "1"


@pytest.mark.parametrize("user", [None, "nobody"])
def test_inheritable_capabilities_of_the_supervisor_are_not_passed_on(
    machine: Machine, user: str | None
) -> None:
    security = SecuritySpec(no_new_privileges=True, capabilities=("CHOWN",))
    inheritable = ((prctl.CAP_CHOWN, prctl.CAP_KILL), (prctl.CAP_INHERITABLE,))
    prctl.set_caps((*inheritable, True))
    try:
        spec = machine.spec("cat", "/proc/self/status", user=user, security=security)
        _, text = in_time(machine.output(spec))
    finally:
        prctl.set_caps((*inheritable, False))
    seen = parse_status(text)
    for key in ("CapPrm", "CapEff", "CapBnd"):
        assert int(seen[key], 16) == 1 << prctl.CAP_CHOWN, key
    assert int(seen["CapInh"], 16) & ~(1 << prctl.CAP_CHOWN) == 0


@pytest.mark.parametrize("user", [None, "nobody"])
def test_named_capabilities_survive_exec(machine: Machine, user: str | None) -> None:
    security = SecuritySpec(no_new_privileges=True, capabilities=("NET_BIND_SERVICE", "CHOWN"))
    _, text = in_time(machine.output(machine.spec("cat", "/proc/self/status", user=user, security=security)))
    seen = parse_status(text)
    expected = (1 << 10) | (1 << 0)
    for key in ("CapPrm", "CapEff", "CapBnd"):
        assert int(seen[key], 16) == expected, key


def test_rlimits_are_set_and_read_back(machine: Machine) -> None:
    limits = ResourceLimits(rlimits={"nofile": 256, "core": 0, "stack": "max", "nproc": 4000})

    async def scenario() -> None:
        run = await machine.start(machine.spec("sleep", "1000", limits=limits))
        try:
            for name, requested in limits.rlimits.items():
                state = run.limits[name]
                assert (state.requested, state.effective, state.enforced) == (requested, requested, True), (
                    name
                )
            text = Path(f"/proc/{run.pid}/limits").read_text()
            assert "Max open files            256                  256" in text
        finally:
            await machine.end(run)

    in_time(scenario())


def test_fewer_open_files_than_the_supervisor_holds_is_no_obstacle(machine: Machine) -> None:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
    try:
        spec = machine.sh("ulimit -n", limits=ResourceLimits(rlimits={"nofile": 16}), oom_score_adj=10)
        status, text = in_time(machine.output(spec))
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert (status.code, text) == (0, "16\n")


def test_the_supervisors_raised_open_files_are_not_passed_on(machine: Machine) -> None:
    _, text = in_time(machine.output(machine.sh("ulimit -Sn; ulimit -Hn")))
    before = machine.host._own_process.nofile_before  # type: ignore[union-attr]
    assert text.split() == [str(value) for value in before]


def test_what_cannot_be_had_is_clamped_and_told(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000", limits=ResourceLimits(rlimits={"nofile": 2**40}))

    async def scenario() -> None:
        run = await machine.start(spec)
        try:
            state = run.limits["nofile"]
            assert state.requested == 2**40
            assert not state.enforced
            assert isinstance(state.effective, int) and 0 < state.effective < 2**40
            assert state.reason
        finally:
            await machine.end(run)

    in_time(scenario())
    assert [line for line in list(map(str, machine.host.problems(spec))) if "nofile" in line]


def test_cgroup_limits_are_enforced_or_explained(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000", limits=LIMITS)
    problems = list(map(str, machine.host.problems(spec)))

    async def scenario() -> None:
        run = await machine.start(spec)
        try:
            for name, controller in (("cpu_max", "cpu"), ("memory_max", "memory"), ("pids_max", "pids")):
                state = run.limits[name]
                absent = machine.host.facts.controllers[controller]
                if absent is None:
                    assert state.enforced and state.effective == state.requested
                else:
                    assert not state.enforced and state.effective is None
                    assert state.reason == f"{controller}: {absent}"
                    assert f"{spec.name}: {name} {state.requested}: {controller}: {absent}" in problems
        finally:
            await machine.end(run)

    in_time(scenario())


def test_required_isolation_refuses_what_is_missing(real_base: Path) -> None:
    with open_machine(real_base, Isolation.REQUIRED) as machine:
        missing = {name: why for name, why in machine.host.facts.controllers.items() if why}
        if "memory" not in missing:
            pytest.skip("this host has the memory controller")
        before = Traces.take(machine.root)
        text = in_time(machine.failure(machine.spec("sleep", "1", limits=LIMITS, name="web")))
        assert text == f"cannot start 'web': set cpu_max to 50000 100000: cpu: {missing['cpu']}"
        assert Traces.take(machine.root) == before


def test_required_isolation_runs_what_asks_for_nothing_missing(real_base: Path) -> None:
    with open_machine(real_base, Isolation.REQUIRED) as machine:
        spec = machine.sh("exit 3", limits=ResourceLimits(rlimits={"core": 0}, memory_oom_group=True))
        assert list(map(str, machine.host.problems(spec))) == []
        status, _ = in_time(machine.output(spec))
        assert status == ExitStatus(code=3)


def test_the_hand_over_file_is_the_users_alone_and_goes_with_the_run(machine: Machine) -> None:
    path = machine.base / "run/config/web.json"
    spec = machine.sh(
        'cat "$BLACKHOLE_CONFIG"', name="web", user="nobody", handed_config='{"a": 1}', config_path=str(path)
    )
    spec = replace(spec, environment={**spec.environment, "BLACKHOLE_CONFIG": str(path)})

    async def look() -> None:
        run = await machine.start(replace(spec, argv=("sleep", "1000")))
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o777) == (65534, 0o600)
        assert path.parent.stat().st_mode & 0o777 == 0o711
        await machine.end(run)
        assert list(path.parent.iterdir()) == []

    in_time(look())
    status, text = in_time(machine.output(spec))
    assert (status.code, text) == (0, '{"a": 1}')


def test_data_dir_is_made_for_the_user_and_left_alone_when_there(machine: Machine) -> None:
    spec = machine.sh("umask; touch here; pwd", user="nobody", umask=0o077)
    deep = replace(spec, data_dir=str(machine.base / "deep/er/web"))
    status, text = in_time(machine.output(deep))
    assert (status.code, text) == (0, f"0077\n{deep.data_dir}\n")
    found = Path(deep.data_dir).stat()
    assert (found.st_uid, found.st_mode & 0o777) == (65534, 0o750)
    Path(deep.data_dir).chmod(0o777)
    in_time(machine.output(replace(deep, user=None)))
    assert Path(deep.data_dir).stat().st_mode & 0o777 == 0o777
    assert Path(deep.data_dir).stat().st_uid == 65534


def test_dev_stdout_can_be_opened_again_by_the_user(machine: Machine) -> None:
    status, text = in_time(machine.output(machine.sh("echo again > /dev/stdout", user="nobody")))
    assert (status.code, text) == (0, "again\n")


def test_output_is_kept_while_nobody_reads_and_no_writer_gets_epipe(machine: Machine) -> None:
    spec = machine.sh("echo one; echo two >&2; echo three")

    async def scenario() -> None:
        run = await machine.start(spec)  # nobody has the FIFO open for reading but the service itself
        reader = machine.host.open_streams(spec)
        status = await run.exited()
        await run.emptied()
        await run.close()
        assert status == ExitStatus(code=0)
        for descriptor in reader.values():
            os.close(descriptor)

    in_time(scenario())


def test_both_streams_arrive_apart(machine: Machine) -> None:
    spec = machine.sh("echo out; echo err >&2")

    async def scenario() -> None:
        streams = machine.host.open_streams(spec)
        run = await machine.start(spec)
        await run.exited()
        await run.emptied()
        assert read_all(streams[Stream.STDOUT]) == "out\n"
        assert read_all(streams[Stream.STDERR]) == "err\n"
        await run.close()
        for descriptor in streams.values():
            os.close(descriptor)

    in_time(scenario())


def test_a_fresh_cgroup_for_every_run(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000")

    async def scenario() -> None:
        run = await machine.start(spec)
        first = (machine.root / spec.name).stat().st_ino
        await machine.end(run)
        assert not (machine.root / spec.name).exists()
        (machine.root / spec.name / "old/older").mkdir(parents=True)
        run = await machine.start(spec)
        assert (machine.root / spec.name).stat().st_ino != first
        assert not (machine.root / spec.name / "old").exists()
        await machine.end(run)

    in_time(scenario())


def test_a_cgroup_with_strangers_in_it_is_refused_by_their_pids(machine: Machine) -> None:
    spec = machine.spec("sleep", "1000", name="web")
    (machine.root / "web").mkdir()
    stranger = sleeper(machine.root / "web/cgroup.procs")
    try:
        text = in_time(machine.failure(spec))
    finally:
        stop(stranger)
        (machine.root / "web").rmdir()
    assert text == (
        f"cannot start 'web': create its cgroup /{machine.root.name}/web: "
        f"it exists and processes are in it: {stranger.pid}"
    )


def test_usage_counts_what_the_kernel_counts(machine: Machine) -> None:
    async def scenario() -> None:
        run = await machine.start(
            machine.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000")
        )
        await eventually(lambda: run.usage().cpu_seconds, "CPU time is counted")
        assert run.usage().pids == 1
        # At the moment of its exec a process has almost no memory.
        await eventually(lambda: (run.usage().memory_bytes or 0) > 50_000, "memory is counted")
        await machine.end(run)

    in_time(scenario())


def test_launch_needs_open_first(real_base: Path) -> None:
    with open_machine(real_base) as machine:
        machine.host.close()
        with pytest.raises(AssertionError):
            in_time(machine.start(machine.spec("true")))


def test_an_unknown_user_is_named_before_anything_is_made(machine: Machine) -> None:
    before = Traces.take(machine.root)
    for changes, text in (
        ({"user": "nosuchuser"}, "find user 'nosuchuser': no such user"),
        ({"group": "nosuchgroup"}, "find group 'nosuchgroup': no such group"),
        ({"user": "4000000"}, "find user '4000000': no entry for this number, so `group` must be set"),
    ):
        assert (
            in_time(machine.failure(machine.spec("true", name="web", **changes)))
            == f"cannot start 'web': {text}"
        )
    assert Traces.take(machine.root) == before
    assert not (machine.base / "data").exists()


def test_a_spawn_error_carries_step_and_errno(machine: Machine) -> None:
    async def scenario() -> SpawnError:
        run = machine.host.launch(machine.spec("/nonexistent/program"), 1)
        with pytest.raises(SpawnError) as caught:
            await run.executed()
        with pytest.raises(SpawnError, match="No such file"):
            await run.executed()  # asked twice, told twice
        return caught.value

    error = in_time(scenario())
    assert (error.step, error.errno) == ("execute /nonexistent/program", 2)


def test_with_any_number_of_descriptors_left_a_run_is_known_or_does_not_begin(machine: Machine) -> None:
    async def attempt(left: int) -> bool:
        spec = machine.spec("sleep", "1000")
        try:
            with descriptors_left(left):
                run = machine.host.launch(spec, 1)
        except SpawnError as error:
            assert error.errno == errno.EMFILE, error
            return False
        await run.executed()
        known = run.started_ticks
        assert known == started_ticks(run.pid) > 0
        await machine.end(run)
        return True

    async def scenario() -> None:
        began = [await attempt(left) for left in range(40)]
        assert began == sorted(began), "the more there are, the better"
        assert (began[0], began[-1]) == (False, True)

    in_time(scenario())
