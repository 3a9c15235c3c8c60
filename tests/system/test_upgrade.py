"""An upgrade in place: another program in the same process, and services that do not notice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blackhole_cg import __version__
from tests.support.configs import SLEEP, config, python, shell
from tests.support.footprint import children, memory_kib, open_descriptors
from tests.support.live import COMMAND, ROOT, Live, alive
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(900)

UPGRADES = int(os.environ.get("BLACKHOLE_CG_UPGRADES", "3"))
"""How often one supervisor is upgraded in the test for leaks; 20 take minutes on a slow machine."""

NEW = "import blackhole_cg; blackhole_cg.__version__ = '9.9.9'"
NUMBERS = (
    "import itertools, time\n"
    "for i in itertools.count():\n"
    "    print(i)\n"
    "    if i % 50 == 0: time.sleep(0.02)\n"
)


def install(program: Path, preparation: str = "") -> None:
    """Put a version of blackhole-cg where the supervisor has its program; the preparation makes it differ."""
    new = program.with_suffix(".new")
    lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})", preparation]
    new.write_text("\n".join([*lines, "from blackhole_cg.cli.main import main", "main()", ""]))
    new.chmod(0o755)
    new.rename(program)


@pytest.fixture
def installed(supervise: Callable[..., Live], tmp_path: Path) -> Callable[..., tuple[Live, Path]]:
    """Makes a supervisor that runs a program of its own, which can be replaced; and that program."""

    def make(configuration: object) -> tuple[Live, Path]:
        program = tmp_path / "blackhole-cg"
        install(program)
        live = supervise(configuration, start=False)
        live.command = [str(program)]
        return live.start().ready(), program

    return make


def identities(live: Live) -> dict[str, tuple[int, int, str]]:
    return {name: (info["pid"], info["run_id"], info["state"]) for name, info in live.services().items()}


def upgrade(live: Live) -> dict:
    return json.loads(live.cli("upgrade", "--json").stdout)


def connect(port: int) -> None:
    """Nobody serves it just then: only the supervisor, whichever it is, holds the socket."""
    socket.create_connection(("127.0.0.1", port), timeout=30).close()


def asked_meanwhile(live: Live) -> None:
    """Is answered; on a machine so busy that a start takes longer than a client waits, not refused."""
    done = live.cli("status", "--json", check=False)
    if done.returncode:
        assert "no answer within" in done.stderr
    else:
        assert len(json.loads(done.stdout)["services"]) == 4


def footprint(live: Live) -> tuple[int, list[str]]:
    """Descriptors and children, between two commands of the probe and with all there is to be kept open."""
    eventually(lambda: live.cli("monitor", "probed", "--once", "--json").stdout, "probed has been sampled")
    running = {str(info["pid"]) for info in live.services().values() if info["pid"]}
    return eventually(
        lambda: set(children(live)) == running and (open_descriptors(live), children(live)), "no probe"
    )


def test_services_do_not_notice_any_number_of_upgrades(installed):
    port = free_port()
    live, program = installed(
        config({
            "numbers": python(NUMBERS),
            "probed": {**SLEEP, "liveness_probe": {"exec": {"command": ["/bin/true"]}, "period": "1s"}},
            "failing": shell("exit 3", restart={"initial_delay": "10m", "max_delay": "10m"},
                             sockets={"http": {"tcp": port}}),
            "idle": SLEEP,
        })
    )  # fmt: skip
    live.cli("stop", "idle")
    live.until("failing", "restarting")
    eventually(lambda: live.status("probed")["health"] == "healthy", "the probe is answered")
    install(program, NEW)
    before = identities(live)
    known = live.events()[-1]["id"]
    follower = subprocess.Popen(
        [*COMMAND, "events", "--follow", "--tail", "0", "--json", "--runtime-dir", str(live.runtime_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    answer = upgrade(live)
    pids = {name: pid for name, (pid, _, _) in before.items() if pid is not None}
    versions = {"version_before": __version__, "version": "9.9.9"}
    assert answer == {"pid": live.pid, **versions, "services": pids}
    held = footprint(live)
    memory = memory_kib(live)
    asked = live.cli("health", "probed", "--json").stdout
    for _ in range(UPGRADES - 1):
        client = subprocess.Popen([*COMMAND, "upgrade", "--runtime-dir", str(live.runtime_dir)])
        while client.poll() is None:  # whoever asks meanwhile is answered, by the one or the other
            asked_meanwhile(live)
            connect(port)
        assert client.returncode == 0
    assert identities(live) == before
    assert live.status("failing")["next_restart_in_seconds"] > 60
    assert live.status("probed")["health"] == "healthy"
    eventually(lambda: live.cli("health", "probed", "--json").stdout != asked, "probes go on")
    # A probe under way has some of its own.
    eventually(lambda: footprint(live)[0] <= held[0], "no more descriptors than before")
    assert footprint(live)[1] == held[1]
    eventually(lambda: memory_kib(live) < memory + 3 * 1024, "no more memory than before")
    numbers = [int(line["message"]) for line in live.log_lines("numbers")]
    assert numbers == list(range(len(numbers)))
    live.cli("start", "idle")
    stored = [event for event in live.events() if event["id"] > known]
    assert live.interrupt() == 0
    assert live.leftovers() == []
    assert not any(map(alive, pids.values()))
    followed = [json.loads(line) for line in follower.communicate(timeout=60)[0].splitlines()]
    assert followed[: len(stored)] == stored
    assert follower.returncode == 0


def test_exit_codes_are_known_of_services_that_end_during_an_upgrade_and_after_it(installed):
    script = "while [ ! -e go ]; do sleep 0.02; done; exit 7"
    never = {"policy": "never"}
    live, program = installed(
        config({
            "during": shell(script, data_dir="during", restart=never),
            "after": shell(script, data_dir="after", restart=never),
            "again": shell(script, data_dir="again", restart={"policy": "on_failure", "initial_delay": "1s"}),
        })
    )  # fmt: skip
    pid = live.status("during")["pid"]
    assert isinstance(pid, int)
    end_it = (
        "import pathlib, time\n"
        "if sys.argv[1] == 'run':\n"
        f"    pathlib.Path({str(live.directory)!r}, 'during', 'go').touch()\n"
        f"    while ') Z ' not in pathlib.Path('/proc/{pid}/stat').read_text(): time.sleep(0.01)\n"
    )
    install(program, end_it)
    upgrade(live)
    during = live.until("during", "failed")
    assert (during["last_exit"]["code"], during["last_exit"]["reason"]) == (7, "exited")
    for name in ("after", "again"):
        (live.directory / name / "go").touch()
    after = live.until("after", "failed")
    assert (after["last_exit"]["code"], after["last_exit"]["reason"]) == (7, "exited")
    again = eventually(lambda: (i := live.status("again"))["restarts"] and i, "its policy applies")
    assert again["last_exit"]["code"] == 7
    assert str(pid) not in children(live), "nothing is left of it"


REFUSED = {
    "raise ImportError('no module named nonsense')": "no module named nonsense",
    "import blackhole_cg.observe.database as d; d.MIGRATIONS = d.MIGRATIONS[:1]": "is newer than 1",
    "import blackhole_cg.core.record as r; r.parse_run = dict": "cannot read the run of web",
    "sys.argv[1:] = ['an-older-one-does-not-know-this']": "no such command",
}


def test_what_cannot_carry_on_is_refused_with_the_reason_and_nothing_changes(installed):
    live, program = installed(config({"web": SLEEP}))
    before = identities(live)

    def refusal() -> str:
        done = live.cli("upgrade", check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("blackhole-cg: cannot upgrade: ")
        assert identities(live) == before
        return done.stderr

    for preparation, reason in REFUSED.items():
        install(program, preparation)
        assert reason in refusal()
    program.unlink()
    assert f"cannot execute {program}: No such file or directory" in refusal()
    install(program)
    text = live.config.read_text()
    live.config.write_text(text.replace("services:", "servises:"))
    assert "servises: unknown key" in refusal()
    live.config.write_text(text)
    assert upgrade(live)["services"] == {"web": before["web"][0]}
    assert identities(live) == before


def test_a_program_that_is_gone_once_it_has_answered_leaves_the_old_one_at_work(installed):
    live, program = installed(config({"web": SLEEP}))
    before = identities(live)
    install(program, "import pathlib; pathlib.Path(sys.argv[0]).unlink()")
    done = live.cli("upgrade", check=False)
    assert done.returncode == 1
    assert f"version {__version__} goes on" in done.stderr
    assert identities(live) == before
    install(program)
    upgrade(live)
    assert identities(live) == before
    live.cli("restart", "web")
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_services_survive_a_program_that_dies_as_it_begins(installed):
    live, program = installed(config({"web": SLEEP}))
    before = identities(live)
    install(program, "if sys.argv[1] == 'run': sys.exit(5)")
    done = live.cli("upgrade", check=False)
    assert done.returncode == 1
    assert "services go on without a supervisor" in done.stderr
    assert live.process.wait(30) == 5
    assert alive(before["web"][0])
    install(program)
    live.start().ready()
    assert identities(live) == before


def test_an_upgrade_waits_for_what_is_under_way(installed):
    live, _ = installed(
        config({
            "slow": shell("trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"),
            "web": SLEEP,
        })
    )  # fmt: skip
    before = identities(live)
    client = [*COMMAND, "restart", "slow", "--runtime-dir", str(live.runtime_dir)]
    restart = subprocess.Popen(client)
    eventually(lambda: live.status("slow")["state"] == "stopping", "the restart is under way")
    upgrade(live)
    assert restart.wait(60) == 0, "it had its answer"
    after = identities(live)
    assert after["web"] == before["web"]
    assert after["slow"][1:] == (2, "running")
