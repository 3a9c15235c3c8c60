"""pids.max and the rlimits: RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_FSIZE."""

from __future__ import annotations

import time

from tests.support.configs import SLEEP, python
from tests.support.evidence import record
from tests.support.waiting import eventually
from tests.system.limits.measure import counters, held, held_rlimits, printed, wait_for_output

# Doubles eight times and no more: a limit that does not hold must not take the host down.
BOMB = (
    "import os, time\n"
    "for generation in range(8):\n"
    "    while True:\n"
    "        try:\n"
    "            os.fork()\n"
    "            break\n"
    "        except OSError: pass\n"
    "time.sleep(1000)\n"
)
NOBODY_ELSE = 61999  # a user without any other process


def test_pids_max_stops_a_fork_bomb_and_the_supervisor_answers_meanwhile(limited):
    live = limited({"bomb": python(BOMB, resources={"processes": 30}), "calm": SLEEP})
    calm = live.status("calm")["pid"]
    group = live.cgroup_root / "bomb"
    pids_max = held(live, "bomb", "pids.max")

    def over() -> bool:
        return counters(group / "pids.events")["max"] > 0 or int(held(live, "bomb", "pids.current")) > 30

    eventually(over, "the bomb has gone off", 60)
    began = time.monotonic()
    info = live.status("calm")
    seconds = time.monotonic() - began
    refused, running = counters(group / "pids.events")["max"], int(held(live, "bomb", "pids.current"))
    assert running <= 30
    assert refused > 0
    assert seconds < 30
    assert (info["state"], info["pid"]) == ("running", calm)
    assert pids_max == "30"
    began = time.monotonic()
    live.cli("stop", "bomb")
    stopped = time.monotonic() - began
    assert not group.exists()
    effect = (
        f"a fork bomb stayed at {running} processes, {refused} forks refused; meanwhile `status` took "
        f"{seconds:.1f} s and `stop` of the bomb {stopped:.1f} s"
    )
    record("pids.max", "processes: 30", pids_max, effect, "pids controller")


OPENS = (
    "import errno, os, time\n"
    "last = 0\n"
    "try:\n"
    "    while last < 5000: last = os.open('/dev/null', os.O_RDONLY)\n"
    "except OSError as error: print(errno.errorcode[error.errno], last + 1)\n"
    "else: print('no end', last + 1)\n"
    "time.sleep(1000)\n"
)
FORKS = (
    "import errno, os, time\n"
    "count = 1\n"
    "while count < 100:\n"
    "    try:\n"
    "        if os.fork() == 0: time.sleep(1000)\n"
    "    except OSError as error:\n"
    "        print(errno.errorcode[error.errno], count)\n"
    "        break\n"
    "    count += 1\n"
    "else: print('no end', count)\n"
    "time.sleep(1000)\n"
)
WRITES = (
    "import errno, os, time\n"
    "with open('file', 'wb', 0) as file:\n"
    "    try:\n"
    "        for _ in range(100): file.write(bytes(65536))\n"
    "    except OSError as error: print(errno.errorcode[error.errno], file.tell())\n"
    "    else: print('no end', file.tell())\n"
    "time.sleep(1000)\n"
)


def test_rlimits_are_where_open_fork_and_write_fail(limited, open_directory):
    someone = {"user": str(NOBODY_ELSE), "group": str(NOBODY_ELSE), "data_dir": str(open_directory / "data")}
    processes = {"processes": 12, "pids_max": "max"}
    others = {"core": 0, "memlock": "64K", "stack": "4M", "cpu": "1h", "as": "1G"}
    live = limited({
        "opens": python(OPENS, resources={"open_files": 64}),
        "forks": python(FORKS, **{**someone, "resources": processes}),
        "writes": python(WRITES, data_dir="writes", resources={"rlimits": {"fsize": "1M", **others}}),
    })  # fmt: skip
    wait_for_output(live, "opens", "forks", "writes")
    assert printed(live, "opens") == ["EMFILE 64"]
    assert printed(live, "forks") == ["EAGAIN 12"]
    assert printed(live, "writes") == ["EFBIG 1048576"]
    assert held(live, "forks", "pids.max") == "max"
    assert held_rlimits(live, "opens")["nofile"] == 64
    assert held_rlimits(live, "forks")["nproc"] == 12
    expected = {"fsize": 2**20, "core": 0, "memlock": 2**16, "stack": 2**22, "cpu": 3600, "as": 2**30}
    assert expected.items() <= held_rlimits(live, "writes").items()
    told = live.services()["opens"]["limits"]["nofile"]
    assert (told["effective"], told["enforced"]) == (64, True)
    record("RLIMIT_NOFILE", "open_files: 64", "64", "open() failed with EMFILE at 64 descriptors", "rlimit")
    effect = f"fork() failed with EAGAIN at 12 processes of user {NOBODY_ELSE}"
    record("RLIMIT_NPROC", "processes: 12, pids_max: max", "12", effect, "rlimit")
    effect = "write() failed with EFBIG at 1 MiB"
    record("RLIMIT_FSIZE", "rlimits: {fsize: 1M}", "1048576", effect, "rlimit")
