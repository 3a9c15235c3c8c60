"""Where a supervisor keeps what it keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUNTIME_MODE: Final = 0o711
"""Services may pass through the runtime directory, not list it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Runtime files (gone at reboot), state (kept), and the log files of services."""

    runtime_dir: Path
    state_dir: Path
    log_dir: Path

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.runtime_dir / "control.sock"

    @property
    def lock(self) -> Path:
        """The file whose lock says who supervises here."""
        return self.runtime_dir / "lock"

    @property
    def spool_dir(self) -> Path:
        """What services have written and is not in their log files yet."""
        return self.runtime_dir / "spool"

    @property
    def database(self) -> Path:
        """Events."""
        return self.state_dir / "state.db"

    @property
    def configurations(self) -> Path:
        """The configurations that were applied last."""
        return self.state_dir / "configurations"

    @property
    def rollouts(self) -> Path:
        """Rolling changes that are under way or have failed."""
        return self.state_dir / "rollouts.json"

    def to_json(self) -> dict[str, str]:
        """The directories by name."""
        return {
            "runtime_dir": str(self.runtime_dir),
            "state_dir": str(self.state_dir),
            "log_dir": str(self.log_dir),
        }

    def make(self) -> None:
        """Create the directories."""
        for path, mode in ((self.runtime_dir, RUNTIME_MODE), (self.state_dir, 0o700), (self.log_dir, 0o750)):
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(mode)


def default_paths(environ: Mapping[str, str], uid: int) -> Paths:
    """The system directories for root, and the XDG base directories for an ordinary user."""
    name = "blackhole-cg"
    if uid == 0:
        return Paths(Path("/run", name), Path("/var/lib", name), Path("/var/log", name))
    home = Path(environ.get("HOME") or os.path.sep)
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state") / name
    runtime = environ.get("XDG_RUNTIME_DIR")
    # Without a session there is no runtime directory; one in /tmp could be somebody else's.
    return Paths(Path(runtime) / name if runtime else state / "run", state, state / "log")
