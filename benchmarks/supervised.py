"""One supervisor with many sleeping services, in directories and a cgroup of its own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.procfs import find_cgroup2_mount, read_children

PROJECT = Path(__file__).parent.parent
COMMAND = ["/bin/sleep", "infinity"]
STOP_SECONDS = 60.0

# What the installed `blackhole-cg` runs, as a file that a profiler can be put in front of.
ENTRY = "import sys\nfrom blackhole_cg.cli.main import main\nsys.exit(main())\n"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Supervised:
    """A supervisor under measurement; a context manager that ends it and everything it started.

    Args:
        count: how many services.
        profile: where cProfile writes, if it is to watch.
        keys: what is configured for each service beside or instead of the usual.
        compiled: where modules are that an earlier one has compiled; None has one do that first.
    """

    def __init__(
        self,
        count: int,
        profile: Path | None = None,
        keys: Mapping[str, Any] | None = None,
        compiled: Path | None = None,
    ) -> None:
        self.count = count
        self._keys = keys or {}
        self.directory = Path(tempfile.mkdtemp(prefix="blackhole-bench-"))
        self._profile = profile
        self._is_compiled = compiled is not None
        self._compiled = compiled or self.directory / "pycache"
        self._services: list[int] = []  # of a supervisor that was killed
        self._cgroup_root = _make_cgroup_root()

    def __enter__(self) -> Self:
        try:
            if not self._is_compiled:
                self._compile()
            self.launch(self._profile)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
        finally:
            self._remove()

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

    def get(self, path: str) -> Any:
        """The JSON answer of the control API to a GET."""
        connection = UnixConnection(self.directory / "run" / "control.sock")
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"GET {path}: {answer.status} {body}")
        return body

    def running_events(self) -> list[dict[str, Any]]:
        """Every event so far by which a service began to be started or was running, oldest first."""
        events = self.get(f"/v1/events?tail={self.count * 1000}")["events"]
        return [event for event in events if event["to"] in {"waiting", "starting", "running"}]

    def wait_until(self, ready: Callable[[], bool], seconds: float, poll_seconds: float) -> None:
        """Polls; raises with the end of the supervisor's log when it ends early or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"the supervisor ended with {self._process.returncode}:\n{self._output()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready within {seconds} s:\n{self._output()}")
            time.sleep(poll_seconds)

    def answers(self) -> bool:
        """Whether the supervisor answers on its control socket."""
        try:
            return bool(self.get("/healthz"))
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """End the supervisor as nothing it can prepare for; its services stay."""
        self._services = read_children(self.pid)
        self._process.kill()
        self._process.wait()

    def launch(self, profile: Path | None = None) -> None:
        """Start the supervisor, the first one or the next one."""
        entry, config = self.directory / "entry.py", self.directory / "blackhole.yaml"
        entry.write_text(ENTRY)
        # JSON is YAML.
        config.write_text(json.dumps(make_config(self.count, self.directory / "data", self._keys)))
        profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
        directories = [f"--{kind}-dir={self.directory / kind}" for kind in ("state", "log")]
        root = [f"--cgroup-root={self._cgroup_root}"] if self._cgroup_root else []
        with (self.directory / "output").open("wb") as output:
            self.launched_at = time.time()
            self._process = subprocess.Popen(
                [sys.executable, *profiler, str(entry), "run", f"--config={config}",
                 f"--runtime-dir={self.directory / 'run'}", *directories, *root],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self._environment(),
            )  # fmt: skip

    def _compile(self) -> None:
        """Have another supervisor come up: what it compiles costs the measured one no time and no memory."""

        def runs() -> bool:
            return first.answers() and first.get("/v1/services")["services"][0]["state"] == "running"

        with Supervised(1, keys=self._keys, compiled=self._compiled) as first:
            first.wait_until(runs, STOP_SECONDS, poll_seconds=0.1)

    def _environment(self) -> dict[str, str]:
        """As installed: with compiled modules, whatever the environment says of them."""
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        environment["PYTHONPYCACHEPREFIX"] = str(self._compiled)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def _output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")[-2000:]

    def _end(self) -> None:
        services = [*self._services, *read_children(self.pid)]
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            for pid in services:
                if Path(f"/proc/{pid}/cmdline").exists() and _is_ours(pid):
                    os.kill(pid, signal.SIGKILL)
            raise RuntimeError(f"the supervisor did not stop within {STOP_SECONDS} s") from None

    def _remove(self) -> None:
        if self._cgroup_root:
            _remove_cgroup(self._cgroup_root)
        shutil.rmtree(self.directory)


def make_config(count: int, data_dir: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """`count` sleeping services, with the limits a real one would have and no wait before a restart."""
    service = {
        "command": COMMAND,
        "data_dir": str(data_dir),
        "resources": {"cpu_percent": 50, "memory_mb": 64, "open_files": 256, "processes": 1024},
        "restart": {"policy": "always", "max_restarts": "max", "initial_delay": "0s"},
        **keys,
    }
    orchestrator = {
        "isolation": "best_effort",
        "log_level": "warning",
        "max_processes": count + 1,
        "shutdown_timeout": "30s",
    }
    return {
        "runtime": {"orchestrator": orchestrator},
        "services": {f"sleeper-{number:04}": service for number in range(count)},
    }


def wall_seconds(event: dict[str, Any]) -> float:
    """When an event happened, as time.time() counts."""
    return datetime.fromisoformat(event["at_wall"]).timestamp()


def _is_ours(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2] == [part.encode() for part in COMMAND]


def _make_cgroup_root() -> Path | None:
    """A cgroup for this run alone; None where none can be made, and the supervisor looks for itself."""
    mount = find_cgroup2_mount()
    if mount is None:
        return None
    root = mount / f"blackhole-bench-{os.getpid()}"
    try:
        root.mkdir(exist_ok=True)
    except OSError:
        return None
    return root


def _remove_cgroup(root: Path) -> None:
    """Removes the cgroup and those below it; what is left in them is killed."""
    if not root.exists():
        return
    if (root / "cgroup.kill").exists():
        (root / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 5
    while "populated 1" in (root / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    for directory, _, _ in os.walk(root, topdown=False):
        Path(directory).rmdir()
