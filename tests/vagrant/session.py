"""An ordinary user's session for Vagrant: a home, a runtime directory and a libvirtd, all gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.machine import die_with_parent
from tests.vm.problems import VmError

START_SECONDS = 60
END_SECONDS = 30
BOX = "blackhole-cg"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Session:
    """Who runs Vagrant, where, and at which port of the loopback interface the machine's ssh is."""

    user: pwd.struct_passwd
    home: Path
    ssh_port: int

    @property
    def project(self) -> Path:
        """The user's copy of the project."""
        return self.home / "project"

    def call(self, *command: str) -> int:
        """Run a command beside the Vagrantfile; its exit code."""
        directory = self.project / "vagrant"
        return subprocess.call(command, cwd=directory, stdin=subprocess.DEVNULL, **self.options())

    def do(self, *command: str) -> None:
        """Run a command that must succeed.

        Raises:
            VmError: it failed.
        """
        if (code := self.call(*command)) != 0:
            raise VmError(f"{' '.join(command)}: ended with {code}")

    def options(self) -> dict[str, Any]:
        """What makes a child process one of this user and this session."""
        environment = {
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "USER": self.user.pw_name,
            "TMPDIR": str(self.home / "tmp"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "XDG_CONFIG_HOME": str(self.home / "c"),  # short: sockets are made deep below it
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "BLACKHOLE_CG_SSH_PORT": str(self.ssh_port),
            "BOX": BOX,
            "EMULATE": "1",
        }
        if os.geteuid() != 0:
            return {"env": environment}
        return {"env": environment, "user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def new_session() -> Iterator[Session]:
    """A session in a temporary home. Its path is short, because sockets are made deep below it."""
    user = ordinary_user()
    home = Path(tempfile.mkdtemp(prefix="bh-vagrant-", dir="/var/tmp"))
    try:
        for name in ("run", "tmp", "project", "c/libvirt"):
            (home / name).mkdir(mode=0o700, parents=True)
        # Otherwise it starts a second daemon, virtlogd, for the machines' output.
        (home / "c/libvirt/qemu.conf").write_text('stdio_handler = "file"\n')
        yield Session(user, home, free_port())
    finally:
        shutil.rmtree(home, ignore_errors=True)


def give(directory: Path, user: pwd.struct_passwd) -> None:
    """Make the user the owner of a directory and everything in it."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def ordinary_user() -> pwd.struct_passwd:
    """This user; for root the one who called sudo, or nobody: a libvirtd of root's would arrange cgroups."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    caller = int(os.environ.get("SUDO_UID", "0"))
    return pwd.getpwuid(caller) if caller else pwd.getpwnam("nobody")


def free_port() -> int:
    """A free port of the loopback interface; the two above it are used, too, and are most likely free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def libvirtd(session: Session) -> Iterator[None]:
    """The user's libvirtd while this lasts. It dies with this process, even at SIGKILL."""
    log = session.home / "libvirtd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # there is one thread: the one that serves packages ended with the build
            ["libvirtd"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509
            **session.options(),
        )
    try:
        _wait_for(session.home / "run/libvirt/libvirt-sock", process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise VmError(f"libvirtd does not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
