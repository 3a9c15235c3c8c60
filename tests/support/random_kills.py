"""Random kills of a real supervisor with real services, and what must hold of them: for tests short and long.

Each service keeps a lock for as long as it lives and writes down each of its starts, so that a second copy
or an unexpected start is seen by the services themselves, whatever the supervisor believes.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import ControlError
from tests.support.configs import config, python
from tests.support.live import Live, alive

NAMES = ("a", "b", "c", "d")
WITNESS = """
import fcntl, os, time
lock = os.open("lock", os.O_RDWR | os.O_CREAT)
def note(name):
    with open(name, "a") as file: file.write(f"{os.getpid()}\\n")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("doubles")
note("starts")
time.sleep(100000)
"""


def witnesses() -> dict[str, Any]:
    """A configuration of services that watch themselves."""
    services = {name: python(WITNESS, data_dir=name, restart={"initial_delay": "50ms"}) for name in NAMES}
    services["b"]["depends_on"] = ["a"]
    return config(services)


@dataclass
class RandomKills:
    """One supervisor after another, each killed at a moment drawn at random."""

    live: Live
    seed: int
    kills: int = 0
    wishes: Counter[str] = field(default_factory=Counter)
    wanted: dict[str, str] = field(default_factory=dict)
    _expected: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # how often each has started, at least/most

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self.wanted = dict.fromkeys(NAMES, "up")

    def run(self, seconds: float) -> None:
        """Begin with everything up; kill until the time is over; end with a supervisor that is ready."""
        self._expected = {name: (len(self._pids(name)), len(self._pids(name))) for name in NAMES}
        end_at = time.monotonic() + seconds
        while time.monotonic() < end_at or self.kills < 3:
            if self._dice.random() < 0.5:
                self._kill_within(self._dice.uniform(0.0, 0.05))
                for _ in range(self._dice.randrange(1, 5)):  # while they come up, or soon after
                    self.live.start()
                    self._kill_within(self._dice.uniform(0.1, 1.2))
                    self.check()
            else:
                self._kill_during_a_wish()
            self.check()
            self.live.start().ready()
            self.check()
            self.check_settled()

    def check(self) -> None:
        """What holds at any moment."""
        for name in NAMES:
            directory = self.live.directory / name
            assert not (directory / "doubles").exists(), f"two copies of {name} were alive"
            least, most = self._expected[name]
            starts = len(self._pids(name))
            assert least <= starts <= most, f"{name} has started {starts} times, not {least} to {most}"

    def check_settled(self) -> None:
        """What holds when a supervisor is ready."""
        services = self.live.services()
        for name in NAMES:
            info = services[name]
            if name not in self.wanted:  # nobody was told how the last wish ended
                self.wanted[name] = info["desired"]
            assert info["desired"] == self.wanted[name], f"{name} is wanted {info['desired']}"
            assert info["state"] == {"up": "running", "down": "stopped"}[self.wanted[name]]
            assert info["restarts"] == 0, f"{name} was restarted, and has not failed"
            lives = [pid for pid in self._pids(name) if alive(pid)]
            assert lives == ([info["pid"]] if self.wanted[name] == "up" else [])
            starts = len(self._pids(name))
            self._expected[name] = (starts, starts)

    def check_events(self) -> None:
        """None is lost or doubled: no gap in their numbers, and each run has begun once."""
        events = self.live.events(tail=100000)
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        starts = Counter((event["service"], event["run_id"]) for event in events if event["to"] == "starting")
        assert max(starts.values()) == 1

    def _kill_within(self, seconds: float) -> None:
        time.sleep(seconds)
        self._kill()

    def _kill(self) -> None:
        assert self.live.process is not None
        self.live.process.kill()
        self.live.process.wait()
        self.kills += 1

    def _kill_during_a_wish(self) -> None:
        action, name = self._dice.choice(["start", "stop", "restart"]), self._dice.choice(NAMES)
        touched = {name, "a"} if name == "b" and action != "stop" else {name}
        for each in touched:
            least, most = self._expected[each]
            self._expected[each] = (least, most + (action != "stop"))
            before = self.wanted.pop(each, None)
            assert before is not None
        killer = threading.Timer(self._dice.uniform(0.0, 0.15), self._kill)
        killer.start()
        try:
            ControlClient(self.live.runtime_dir).change(action, [name])
            self.wanted[name] = "down" if action == "stop" else "up"
            self.wishes["acknowledged"] += 1
        except ControlError:
            self.wishes["cut short"] += 1
        killer.join()

    def _pids(self, name: str) -> list[int]:
        path: Path = self.live.directory / name / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []
