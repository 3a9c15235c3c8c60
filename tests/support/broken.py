"""blackhole-cg with one limit that never reaches the kernel: `python -m tests.support.broken ARGUMENTS`.

What to break is in the environment, as NAME:HOW. HOW is `ignored` (the write does nothing) or `unnoticed`
(and reading back tells the supervisor what it wanted to write). The tests start it instead of blackhole-cg
when that is set.
"""

from __future__ import annotations

import os
import resource

BREAK = "BLACKHOLE_CG_TEST_BREAK"
IGNORED, UNNOTICED = "ignored", "unnoticed"


def break_file(broken: str, how: str) -> None:
    """Make every write to this cgroup file do nothing."""
    from blackhole_cg.kernel.cgroup import Cgroup

    write, read = Cgroup.write, Cgroup.read
    wanted: dict[str, list[str]] = {}

    def no_write(self: Cgroup, file: str, text: str) -> None:
        if file == broken:
            wanted.setdefault(self.path, []).append(text)
        else:
            write(self, file, text)

    def false_read(self: Cgroup, file: str) -> str:
        if file.removesuffix(".effective") == broken and self.path in wanted:
            return "\n".join(wanted[self.path])
        return read(self, file)

    Cgroup.write = no_write
    if how == UNNOTICED:
        Cgroup.read = false_read


def break_rlimit(name: str) -> None:
    """Make setting this rlimit do nothing."""
    from blackhole_cg.kernel import preexec

    set_rlimit, broken = preexec._set_rlimit, getattr(resource, name)

    def no_set(number: int, limits: tuple[int, int]) -> None:
        if number != broken:
            set_rlimit(number, limits)

    preexec._set_rlimit = no_set


def main() -> None:
    """Break it, then be blackhole-cg."""
    from blackhole_cg.cli.main import main as blackhole_cg

    name, _, how = os.environ[BREAK].partition(":")
    if name.startswith("RLIMIT_"):
        break_rlimit(name)
    else:
        break_file(name, how)
    blackhole_cg()


if __name__ == "__main__":
    main()
