"""What goes into the VM and what comes out of it: each is a tar on a raw disk."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SECTOR = 512
SKIPPED = frozenset((".git", ".venv", "__pycache__", "build", "dist"))


@dataclass(frozen=True)
class Job:
    """What to do in the VM. `command` empty is an interactive shell; times are seconds."""

    command: Sequence[str] = ()
    timeout_seconds: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    install: bool = True  # the project as a wheel, so that blackhole-cg is on the PATH
    terminal: tuple[int, int] | None = None  # columns and lines of the interactive one

    def script(self) -> str:
        """The shell script that the VM runs."""
        lines = [
            "cd /work",
            *(f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()),
        ]
        if self.install:
            lines.append("install-project /work || exit 125")
        if not self.command:
            columns, rows = self.terminal or (80, 24)
            return "\n".join([*lines, f"stty columns {columns} rows {rows}", "exec bash --login", ""])
        command = shlex.join(self.command)
        if self.timeout_seconds is not None:
            command = f"timeout --kill-after=10 {self.timeout_seconds:g} {command}"
        return "\n".join([*lines, command, ""])


def project_files(root: Path) -> list[Path]:
    """The files of the project, relative: those git knows or would offer to add; all of them without git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")
    except (OSError, subprocess.CalledProcessError):
        return sorted(_walk(root))
    paths = (Path(os.fsdecode(name)) for name in names if name)
    return sorted(path for path in paths if (root / path).is_symlink() or (root / path).is_file())


def pack(job: Job, root: Path, target: Path) -> None:
    """Write the job and the project's files as a tar, padded to whole sectors."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in project_files(root):
            tar.add(root / path, f"work/{path}", recursive=False, filter=_owned_by_root)
        _add_text(tar, "job/run", job.script())
        if not job.command:
            _add_text(tar, "job/interactive", "")
    size = target.stat().st_size
    os.truncate(target, size + -size % SECTOR)


def unpack(source: Path, target: Path) -> None:
    """Take the regular files out of a tar that the VM wrote; nothing may land outside `target`."""
    with tarfile.open(source) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            content = tar.extractfile(member) if member.isfile() else None
            if content is None or path.is_absolute() or ".." in path.parts:
                continue
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with content, place.open("wb") as output:
                shutil.copyfileobj(content, output)


def _walk(root: Path) -> Iterable[Path]:
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in SKIPPED and not name.endswith("_cache")]
        for name in files:
            yield Path(directory, name).relative_to(root)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))
