"""The programs of the host that building and running need, and how they get there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.vm.problems import Unavailable

QEMU = "qemu-system-x86_64"
RUN_TOOLS = {QEMU: "qemu-system-x86"}
BUILD_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def need_run_tools() -> None:
    """Make sure that QEMU is here, installing it where that is possible.

    Raises:
        Unavailable: it is not, and this process may not install it.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise Unavailable(f"the test VM is built for x86_64, and this host is {platform.machine()}")
    need(RUN_TOOLS)


def need_build_tools() -> None:
    """Make sure that what builds an image is here, installing it where that is possible.

    Raises:
        Unavailable: it is not, and this process may not install it.
    """
    extra = [] if DEBIAN_KEYS.exists() else ["debian-archive-keyring"]
    if os.geteuid() != 0:
        need({**BUILD_TOOLS, "newuidmap": "uidmap"}, extra)
        _need_subordinate_ids()
    else:
        need(BUILD_TOOLS, extra)


def need(tools: dict[str, str], extra_packages: list[str] | None = None) -> None:
    """Make sure that these programs are here; install their packages, and the extra ones, where possible.

    Raises:
        Unavailable: a program is not here, and this process cannot install it.
    """
    missing = {tool: package for tool, package in tools.items() if _find(tool) is None}
    packages = sorted({*missing.values(), *(extra_packages or [])})
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    what = ", ".join(missing) or ", ".join(packages)
    if shutil.which("apt-get") is None:
        raise Unavailable(f"{what}: not found; install what Debian calls {' '.join(packages)}")
    if os.geteuid() != 0:
        raise Unavailable(f"{what}: not found; install it with: sudo {' '.join(command)}")
    print(f"==> installing for the test VM: {' '.join(packages)}", file=sys.stderr, flush=True)
    if not _apt(command) and not (_apt(["apt-get", "update"]) and _apt(command)):
        raise Unavailable(f"{what}: not found, and this failed: {' '.join(command)}")
    absent = [tool for tool in missing if _find(tool) is None]
    if absent:
        raise Unavailable(f"{', '.join(absent)}: still not found after installing {' '.join(packages)}")


def _apt(command: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        print(done.stderr[-2000:], file=sys.stderr)
    return done.returncode == 0


def _find(tool: str) -> str | None:
    """Like `which`, but it knows the directories that only root has in its PATH."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")


def _need_subordinate_ids() -> None:
    """An ordinary user builds in a user namespace, which needs a range of user ids of its own."""
    import pwd

    name = pwd.getpwuid(os.getuid()).pw_name
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = path.read_text().splitlines() if path.exists() else []
        if not any(line.split(":")[0] in (name, str(os.getuid())) for line in lines):
            raise Unavailable(
                f"{name} has no line in {path}, so it cannot build an image; get one with: "
                f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
            )
