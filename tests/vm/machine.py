"""One VM: its QEMU command line, its console, its end. Nothing of it outlives this process."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from tests.vm import job as jobs
from tests.vm.image import ROOT, Image
from tests.vm.problems import Interrupted, VmError
from tests.vm.tools import QEMU

MARK = b"\x1e"  # the guest prints it before and after what the command prints
TIMED_OUT = 124
BOOT_SECONDS = 120  # on top of the job's own time: to boot, to unpack, to hand over the results
OUT_BYTES = 256 << 20  # sparse
PR_SET_PDEATHSIG = 1
TEMPORARY = "blackhole-cg-vm-"

# Plain Nehalem has no RDRAND, and the boot would wait for entropy; -cpu max makes the guest's clock slow.
EMULATED = ["-accel", "tcg,thread=multi", "-cpu", "Nehalem,+rdrand"]
KVM = ["-accel", "kvm", "-cpu", "host"]
# quiet and loglevel: the console belongs to the command. panic: a dead guest ends QEMU at once.
KERNEL_OPTIONS = (
    "root=/dev/nvme0n1 rw rootwait console=ttyS0 quiet loglevel=3 systemd.show_status=0 psi=1 panic=-1 "
    "net.ifnames=0 mitigations=off random.trust_cpu=on"
)


@dataclass(frozen=True)
class Scratch:
    """An extra disk, /dev/disk/by-id/virtio-scratchN; `iops` 0 is as fast as it goes."""

    size_mib: int
    iops: int = 0


@dataclass(frozen=True)
class Hardware:
    """What the VM has."""

    memory_mib: int = 2048
    cpus: int = 2
    kvm: bool = False
    scratch: Sequence[Scratch] = ()


def run(image: Image, job: jobs.Job, hardware: Hardware, results: Path, console: TextIO) -> int:
    """Boot, run the job, show its output on `console`, put what it left in /out into `results`.

    Returns:
        The command's exit code; 124 when it took too long.

    Raises:
        VmError: the VM ended without a result.
        Interrupted: a signal asked this process to end.
    """
    with temporary_directory() as directory:
        command = _command(image, hardware, directory)
        jobs.pack(job, ROOT, directory / "job.tar")
        if job.command:
            shown = _Console(console)
            limit = None if job.timeout_seconds is None else job.timeout_seconds + BOOT_SECONDS
            in_time = _run_watched([*command, "-serial", "stdio"], limit, shown)
        else:
            shown, in_time = None, True
            _run_attached([*command, "-serial", "mon:stdio"])
        return _collect(directory / "out.raw", results, shown, in_time)


def _collect(disk: Path, results: Path, shown: _Console | None, in_time: bool) -> int:
    with contextlib.suppress(Exception):  # an unfinished tar: what came before the damage is there
        jobs.unpack(disk, results)
    code = results / "rc"
    if code.exists() and code.read_text().strip():
        return int(code.read_text())
    if not in_time:
        print("==> the VM took too long and was ended", file=sys.stderr)
        return TIMED_OUT
    boot = shown.before.decode(errors="replace")[-4000:] if shown is not None else ""
    raise VmError(f"the VM ended without a result\n{boot}")


def _command(image: Image, hardware: Hardware, directory: Path) -> list[str]:
    """The root is on NVMe and has it for itself: Debian's cloud kernels have that driver built in, but number
    several such disks in any order. The others are virtio disks, found by their serial numbers."""
    command = [QEMU, *(KVM if hardware.kvm else EMULATED), "-M", "q35", "-m", f"{hardware.memory_mib}M"]
    command += [
        "-smp",
        str(hardware.cpus),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]
    command += ["-kernel", str(image.kernel), "-append", KERNEL_OPTIONS]
    command += ["-drive", f"file={_quoted(image.root)},format=raw,if=none,id=root,snapshot=on"]
    command += ["-device", "nvme,drive=root,serial=bhroot"]
    command += _disk("bhjob", directory / "job.tar", "readonly=on")
    command += _disk("bhout", _sparse(directory / "out.raw", OUT_BYTES), "cache=unsafe")
    for number, scratch in enumerate(hardware.scratch):
        file = _sparse(directory / f"scratch{number}.raw", scratch.size_mib << 20)
        throttle = f",throttling.iops-total={scratch.iops}" if scratch.iops else ""
        command += _disk(f"scratch{number}", file, f"cache=unsafe{throttle}")
    return command


def _disk(name: str, file: Path, options: str) -> list[str]:
    drive = f"file={_quoted(file)},format=raw,if=none,id={name},{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def _quoted(path: Path) -> str:
    """QEMU's options are separated by commas; a doubled one stands for itself."""
    return str(path).replace(",", ",,")


def _sparse(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def die_with_parent() -> Callable[[], None]:
    """For the child before exec: even if this process is killed with SIGKILL, the VM goes with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _run_watched(command: list[str], limit_seconds: float | None, console: _Console) -> bool:
    """Pass the console on until QEMU ends; False when it had to be ended."""
    deadline = None if limit_seconds is None else time.monotonic() + limit_seconds
    # QEMU must not end at the Ctrl-C that ends this process, so it gets a session of its own.
    with _started(
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if selector.select(left):
                    chunk = os.read(process.stdout.fileno(), 65536)
                    if not chunk:
                        break
                    console.feed(chunk)
        _check_exit(process.wait())
    return True


def _run_attached(command: list[str]) -> None:
    """Give the terminal to the VM until it ends. Ctrl-A X is QEMU's own way out."""
    with _started(command) as process:
        _check_exit(process.wait())


def _check_exit(code: int) -> None:
    if code != 0:
        raise VmError(f"{QEMU} ended with {code}; what it said is above")


@contextlib.contextmanager
def _started(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # there is one thread: the one that serves packages ended with the build
        command,
        preexec_fn=die_with_parent(),  # noqa: PLW1509
        **options,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


class _Console:
    """Shows what lies between the two marks; what comes before is kept for when the boot fails."""

    def __init__(self, output: TextIO) -> None:
        self._output: BinaryIO | None = getattr(output, "buffer", None)
        self._text_output = output
        self._marks = 0
        self.before = b""

    def feed(self, chunk: bytes) -> None:
        for number, part in enumerate(chunk.split(MARK)):
            if number > 0:
                self._marks += 1
            if self._marks == 0:
                self.before += part
            elif self._marks == 1 and part:
                self._show(part.replace(b"\r\n", b"\n"))

    def _show(self, part: bytes) -> None:
        if self._output is None:
            self._text_output.write(part.decode(errors="replace"))
        else:
            self._output.write(part)
        self._text_output.flush()


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory that is locked while its owner lives, so that the next one can clear away a dead one's."""
    _sweep(Path(tempfile.gettempdir()))
    path = Path(tempfile.mkdtemp(prefix=TEMPORARY))
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{TEMPORARY}*"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """While this lasts, SIGTERM, SIGHUP and SIGINT raise Interrupted, so that everything is tidied up."""

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
