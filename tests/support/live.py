"""A real supervisor, as a user runs one: the CLI in a process of its own, on this host's cgroup v2."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from blackhole_cg.control.client import ControlClient
from blackhole_cg.errors import BlackholeError
from tests.support.broken import BREAK
from tests.support.waiting import eventually

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "blackhole_cg.cli.main"]


def cgroup_mount() -> Path | None:
    """Where cgroup v2 is mounted, if anywhere."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None


def require_cgroup() -> Path:
    """The cgroup v2 mount, or a skip that says why there is none to use."""
    mount = cgroup_mount()
    if mount is None:
        pytest.skip("cgroup v2 is not mounted")
    if os.geteuid() != 0 or not os.access(mount, os.W_OK):
        pytest.skip(f"{mount} is not writable for this user")
    return mount


def supervisor_command() -> list[str]:
    """What is run as the supervisor: with a limit broken on purpose (tests/break_limits.py), that one."""
    return [sys.executable, "-m", "tests.support.broken"] if os.environ.get(BREAK) else COMMAND


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


class Live:
    """One `blackhole-cg run`. Use `start`, then ask it, then `interrupt` or `close`."""

    def __init__(self, directory: Path, config: Mapping[str, Any] | str, *options: str) -> None:
        self.directory = directory
        self.runtime_dir = directory / "run"
        self.state_dir = directory / "state"
        self.log_dir = directory / "log"
        self.config = directory / "blackhole.yaml"
        self.config.write_text(config if isinstance(config, str) else yaml.safe_dump(dict(config)))
        self.cgroup_root = require_cgroup() / f"bh-test-{uuid.uuid4().hex[:10]}"
        self.output = directory / "output"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.command = supervisor_command()

    def start(self, wrapper: tuple[str, ...] = ()) -> Live:
        """Start the supervisor; `wrapper` is a command that execs the rest of its arguments."""
        places = {"runtime": self.runtime_dir, "state": self.state_dir, "log": self.log_dir}
        options = ["--cgroup-root", str(self.cgroup_root)]
        options += [text for name, path in places.items() for text in (f"--{name}-dir", str(path))]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *wrapper,
                    *self.command,
                    "run",
                    "--config",
                    self.config,
                    "--cgroup-root",
                    self.cgroup_root,
                    *options,
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        return self

    def ready(self) -> Live:
        """Wait until everything is up."""
        up = re.compile("^(all services running|running, but for)", re.MULTILINE)
        eventually(lambda: up.search(self.text()) or self.ended(), "all services running", 120)
        assert not self.ended(), self.text()
        return self

    def text(self) -> str:
        """What the supervisor printed so far."""
        return self.output.read_text(errors="replace")

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.runtime_dir / "control.sock"

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a client command against this supervisor."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=180,
            env={**os.environ, "BLACKHOLE_CG_RUNTIME_DIR": str(self.runtime_dir)},
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def background(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a client command; its exit code and what it says are for the caller."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "BLACKHOLE_CG_RUNTIME_DIR": str(self.runtime_dir)},
        )

    @property
    def client(self) -> ControlClient:
        """Asks the supervisor from this process; what a command prints is tests/cli's to test."""
        return ControlClient(self.runtime_dir)

    def status(self, name: str) -> dict[str, Any]:
        """ServiceInfo of one service."""
        return self._asked(lambda: self.client.service(name))

    def services(self) -> dict[str, dict[str, Any]]:
        """ServiceInfo of all, by name."""
        return {each["name"]: each for each in self._asked(self.client.services)}

    def events(self, name: str | None = None, tail: int | None = None) -> list[dict[str, Any]]:
        """Stored events."""
        return self._asked(lambda: self.client.events(name, tail=tail))

    def _asked(self, question: Callable[[], T]) -> T:
        """The answer; none at all fails the test with what the supervisor said."""
        try:
            return question()
        except BlackholeError as error:
            raise AssertionError(f"{error}\n{self.text()}") from error

    def until(self, name: str, state: str, timeout_seconds: float = 90) -> dict[str, Any]:
        """Wait for a state."""

        def look() -> dict[str, Any] | None:
            info = self.status(name)
            return info if info["state"] == state else None

        return eventually(look, f"{name} is {state}", timeout_seconds)

    def interrupt(self, number: int = signal.SIGINT, timeout_seconds: float = 90) -> int:
        """Ask for the end as Ctrl-C does; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_seconds)

    def close(self) -> None:
        """End the supervisor and whatever it left; for the end of a test, whatever happened in it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._clear_cgroups()

    def leftovers(self) -> list[str]:
        """What should not be there any more: cgroups, the socket, FIFOs, handed-over configurations."""
        found = [str(path) for path in self.cgroup_root.rglob("*") if path.is_dir()]
        files = [path for path in self.runtime_dir.rglob("*") if not path.is_dir() and path.name != "lock"]
        return found + [str(path) for path in files]

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """The log file of a service."""
        path = self.log_dir / f"{name}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _clear_cgroups(self) -> None:
        if not self.cgroup_root.exists():
            return
        (self.cgroup_root / "cgroup.kill").write_text("1")
        groups = sorted((p for p in self.cgroup_root.rglob("*") if p.is_dir()), reverse=True)
        for group in [*groups, self.cgroup_root]:
            eventually(lambda group=group: _remove(group), f"{group} can be removed", 60)


def _remove(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def state_times(events: list[dict[str, Any]], state: str) -> list[float]:
    """When a service entered a state, in seconds of the day."""
    times = []
    for event in events:
        if event["kind"] == "state" and event["to"] == state:
            hour, minute, second = re.findall(r"T(\d+):(\d+):([\d.]+)Z", event["at_wall"])[0]
            times.append(int(hour) * 3600 + int(minute) * 60 + float(second))
    return times


def crash(live: Live) -> None:
    """Kill a supervisor as nothing it can prepare for."""
    assert live.process is not None
    live.process.kill()
    live.process.wait()
