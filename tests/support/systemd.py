"""systemd as the tests use it: the system's own, or the one of a user. For the test VM only."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from blackhole_cg.control.client import ControlClient
from tests.support.live import ROOT

UNIT = "blackhole-cg.service"
HOLDER = "blackhole-cg-services.service"


def require_test_vm() -> None:
    """Skip anywhere else: these tests install units."""
    if os.environ.get("BLACKHOLE_CG_TEST_VM") != "1":
        pytest.skip("installs systemd units, so it runs in the test VM only")


def installed_prefix() -> Path:
    """The virtual environment in which the VM has the package."""
    command = shutil.which("blackhole-cg")
    assert command, "the package is installed in the VM"
    return Path(command).parents[1]


@dataclass(frozen=True)
class Systemd:
    """One manager. `user` is whose; None for the system's."""

    user: str | None = None

    @property
    def kind(self) -> str:
        """The directory of its units in this tree."""
        return "system" if self.user is None else "user"

    @property
    def uid(self) -> int:
        return 0 if self.user is None else pwd.getpwnam(self.user).pw_uid

    @property
    def home(self) -> Path:
        return Path(pwd.getpwuid(self.uid).pw_dir)

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as this manager's user, in an environment like that of a login."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        prefix: list[str | Path] = []
        if self.user is not None:
            environ["XDG_RUNTIME_DIR"] = f"/run/user/{self.uid}"
            prefix = ["runuser", "-u", self.user, "--"]
        done = subprocess.run(
            [*prefix, *command],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env=environ,
            cwd="/",
        )
        if check and done.returncode:
            raise AssertionError(
                f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.journal()[-8000:]}"
            )
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        scope = [] if self.user is None else ["--user"]
        return self.run("systemctl", *scope, *arguments, check=check).stdout.strip()

    def show(self, name: str, unit: str = UNIT) -> str:
        return self.systemctl("show", "--value", "-p", name, unit)

    def services(self) -> dict[str, dict]:
        """ServiceInfo of all, by name; a user's supervisor is asked by that user."""
        if self.user is None:
            found = ControlClient("/run/blackhole-cg").services()
        else:
            found = json.loads(self.run("blackhole-cg", "status", "--json").stdout)["services"]
        return {each["name"]: each for each in found}

    def journal(self) -> str:
        """What the supervisor's unit logged since the boot."""
        selection = ["-u", UNIT] if self.user is None else [f"_UID={self.uid}"]
        command = ["journalctl", "--boot", "--no-pager", "--quiet", *selection]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def install_units(self, directory: Path, prefix: Path) -> None:
        """This tree's units, for a package that is installed in `prefix`."""
        directory.mkdir(parents=True, exist_ok=True)
        for file in (ROOT / "systemd" / self.kind).glob("*.service"):
            (directory / file.name).write_text(file.read_text().replace("@PREFIX@", str(prefix)))
        self.systemctl("daemon-reload")

    def remove_units(self, directory: Path) -> None:
        """Stop them and forget them."""
        self.systemctl("stop", UNIT, check=False)
        for name in (UNIT, HOLDER):
            (directory / name).unlink()
        self.systemctl("reset-failed", UNIT, check=False)
        self.systemctl("daemon-reload")
        self.systemctl("stop", HOLDER, check=False)

    def verify(self, directory: Path) -> str:
        """What `systemd-analyze verify` has to say about the units; nothing, when all is well."""
        scope = [] if self.user is None else ["--user"]
        units = [directory / name for name in (UNIT, HOLDER)]
        done = self.run("systemd-analyze", *scope, "verify", *units, check=False)
        said = done.stdout + done.stderr
        return "\n".join(line for line in said.splitlines() if "blackhole" in line) or "x" * done.returncode


@contextmanager
def restarted_late(services: Mapping[str, object]) -> Iterator[None]:
    """The system's units with these services and a supervisor that is restarted only after a while."""
    require_test_vm()
    system = Systemd()
    units, config = Path("/run/systemd/system"), Path("/etc/blackhole-cg/blackhole.yaml")
    config.parent.mkdir(exist_ok=True)
    config.write_text(yaml.safe_dump({"services": services}))
    drop_in = units / f"{UNIT}.d"
    drop_in.mkdir(parents=True)
    (drop_in / "late.conf").write_text("[Service]\nRestartSec=8\n")
    system.install_units(units, installed_prefix())
    yield
    system.remove_units(units)
    shutil.rmtree(drop_in)
    shutil.rmtree(config.parent)
