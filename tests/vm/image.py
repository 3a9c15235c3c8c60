"""The image that the VM boots from: what it is made of, its key, and how it is built and cached."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.vm import settings, tools
from tests.vm.problems import VmError

ROOT = Path(__file__).parents[2]
GUEST = Path(__file__).parent / "guest"
BOX = ROOT / "vagrant/box"
EPOCH = 1  # raise it to pick up Debian's updates: the key does not look at the mirror
SIZE = "3G"  # the file is sparse
UNUSED_DAYS = 14
PINS = ROOT / "constraints.txt"
PLACE = "/var/tmp/build"

# Suite -> its kernels, the default one first; 6.12 for bookworm comes from its backports.
KERNELS = {"bookworm": ("6.1", "6.12"), "trixie": ("6.12",)}

SYSTEM = """
systemd-sysv systemd udev dbus dbus-user-session libpam-systemd kmod util-linux procps iproute2
python3 python3-venv libcap2
"""
CALLED_BY_TESTS = "curl fio make strace nginx-light redis-server postgresql prometheus"
PACKAGES = f"{SYSTEM} {CALLED_BY_TESTS}".split()
# Directories of /usr/share that nothing here reads; Prometheus brings 200 MB of time zones for its pages.
UNUSED = ("man", "doc", "locale", "info", "javascript")
# What Vagrant needs, and what installing the project needs where there is no network.
FOR_VAGRANT = "openssh-server sudo rsync qemu-guest-agent busybox-static cpio"
TO_INSTALL = "gcc libc6-dev libcap-dev python3-dev"
BOX_PACKAGES = f"{FOR_VAGRANT} {TO_INSTALL}".split()

# Nothing of these is used in the VM.
CHECKERS = "mypy mypy_extensions ruff librt ast_serialize types-psutil types-PyYAML"
SERVERS = "grpcio grpcio-health-checking protobuf"  # of a test that runs on the host
NOT_INSTALLED = frozenset(f"{CHECKERS} {SERVERS}".lower().split())


@dataclass(frozen=True)
class Recipe:
    """Which system to build."""

    suite: str = "bookworm"
    kernel: str = ""  # "" is the suite's own
    box: bool = False  # with what vagrant/box adds for Vagrant

    def __post_init__(self) -> None:
        if self.suite not in KERNELS:
            raise VmError(f"there is no suite {self.suite!r} here; there is {', '.join(KERNELS)}")
        if not self.kernel:
            object.__setattr__(self, "kernel", KERNELS[self.suite][0])
        if self.kernel not in KERNELS[self.suite]:
            kernels = ", ".join(KERNELS[self.suite])
            raise VmError(f"{self.suite} has no kernel {self.kernel}; it has {kernels}")

    def key(self) -> str:
        """A name for everything the image is made of."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        parts = [self.suite, self.kernel, SIZE, str(EPOCH), *self.packages(), *UNUSED, requirements()]
        digest.update("\0".join(parts).encode())
        box = "box-" if self.box else ""
        return f"{box}{self.suite}-{self.kernel}-{digest.hexdigest()[:12]}"

    def packages(self) -> list[str]:
        """The Debian packages of the system."""
        return [*PACKAGES, *(BOX_PACKAGES if self.box else ())]

    def files(self) -> list[Path]:
        """The files that the build uses inside the new system."""
        guest = sorted(GUEST.iterdir())
        return [*guest, BOX / "setup.sh", BOX / "authorized_keys", PINS] if self.box else guest


@dataclass(frozen=True)
class Image:
    """A built image."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Only a box has one."""
        return self.directory / "initrd"


def requirements() -> str:
    """The pinned packages of the guest: those of the project without the tools that check style and types."""
    lines = PINS.read_text().splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    kept = [pin for pin in pins if pin and re.split(r"[=<>~! ;]", pin)[0].lower() not in NOT_INSTALLED]
    return "\n".join(kept) + "\n"


def cache_directory() -> Path:
    """Where images are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "blackhole-cg/vm"


def find_image(recipe: Recipe) -> Image | None:
    """The image of this recipe, if it has been built."""
    image = Image(cache_directory() / recipe.key())
    return image if image.root.exists() else None


def ensure_image(recipe: Recipe) -> Image:
    """The image of this recipe, built if need be; two at once take turns.

    Raises:
        Unavailable: the host cannot build it.
        VmError: building it failed.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    if (image := find_image(recipe)) is None:
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (image := find_image(recipe)) is None:
                tools.need_build_tools()
                image = _build(recipe, cache)
                _remove_unused(cache)
    os.utime(image.directory)
    return image


def _build(recipe: Recipe, cache: Path) -> Image:
    key = recipe.key()
    print(f"==> building the test VM's image {key}; this takes a minute or two", file=sys.stderr, flush=True)
    started = time.monotonic()
    with _work_directory() as work, settings.pip_settings(PLACE) as pip:
        _prepare(recipe, work, pip)
        log = work / "log"
        with log.open("wb") as output:
            done = subprocess.run(
                _mmdebstrap(recipe, work),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(recipe, work),
                check=False,
            )
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise VmError(f"cannot build the image {key}: mmdebstrap ended with {done.returncode}:\n{tail}")
        image = _adopt(work / "out", cache / key)
    seconds = time.monotonic() - started
    print(f"==> built {image.directory} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return image


@contextlib.contextmanager
def _work_directory() -> Iterator[Path]:
    """A directory that a user namespace's root can enter too; homes are often closed to it."""
    work = Path(tempfile.mkdtemp(prefix="blackhole-cg-vm-build-", dir="/var/tmp"))
    try:
        work.chmod(0o755)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _prepare(recipe: Recipe, work: Path, pip: settings.PipSettings) -> None:
    (work / "guest").mkdir()
    for path in recipe.files():
        shutil.copy(path, work / "guest")
    (work / "requirements.txt").write_text(requirements())
    (work / "pip.conf").write_text(pip.text)
    (work / "copies").write_text("".join(f"{place}\t{path}\n" for place, path in pip.copies.items()))
    (work / "environment").write_text("".join(f"{k}={v}\n" for k, v in settings.proxies().items()))
    (work / "out").mkdir()
    (work / "out").chmod(0o777)


def _environment(recipe: Recipe, work: Path) -> dict[str, str]:
    mine = {"WORK": str(work), "SUITE": recipe.suite, "KERNEL": recipe.kernel, "SIZE": SIZE, "PLACE": PLACE}
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return {**os.environ, **mine, "PATH": path, "TMPDIR": "/var/tmp"}


def _mmdebstrap(recipe: Recipe, work: Path) -> list[str]:
    options = ["--quiet", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--variant=minbase"]
    options += ["--format=null", "--architectures=amd64", f"--include={','.join(recipe.packages())}"]
    options += ["--dpkgopt=force-unsafe-io"]
    options += [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in UNUSED]
    options += ['--aptopt=APT::Install-Recommends "false"']
    options += [f"--aptopt={line}" for line in settings.apt_options()]
    # PostgreSQL's package would make a cluster and start it.
    options += [
        '--essential-hook=mkdir -p "$1/etc/postgresql-common"; '
        'echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"'
    ]
    options += [f'--customize-hook=sh {work}/guest/build.sh "$1"']
    # mmdebstrap as root works in the host's own mount namespace; in one of its own, no mount of a build can
    # outlive it or be seen by others.
    private = ["unshare", "--mount", "--propagation", "private"] if os.geteuid() == 0 else []
    return [
        "nice",
        *private,
        "mmdebstrap",
        *options,
        recipe.suite,
        "/dev/null",
        *settings.debian_sources(recipe.suite),
    ]


def _adopt(built: Path, directory: Path) -> Image:
    """Move what was built into the cache in one step; it may come from another file system or another uid."""
    fresh = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for path in built.iterdir():
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", path, fresh / path.name], check=True)
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)
    return Image(directory)


def _remove_unused(cache: Path) -> None:
    """Delete the images that nobody has used for a while; a running VM keeps the files it has open."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for directory in cache.iterdir():
        if directory.is_dir() and directory.stat().st_mtime < oldest:
            shutil.rmtree(directory, ignore_errors=True)
