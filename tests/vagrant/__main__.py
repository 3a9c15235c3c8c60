"""The command line: `tests.vagrant [PYTEST-ARGUMENT...]` goes the whole way; `--box FILE` only packs.

See docs/vagrant.md.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.vagrant import box, needs
from tests.vagrant.session import BOX, Session, give, libvirtd, new_session
from tests.vm.image import ROOT, Recipe, ensure_image
from tests.vm.job import project_files
from tests.vm.machine import signals_raise
from tests.vm.problems import Interrupted, Unavailable, VmError
from tools.run_reaped import become_subreaper, children, describe, kill_children

UNAVAILABLE = 77
FAILED = 125


def main(arguments: list[str]) -> int:
    """Do it; the exit code is that of the tests, or as tests.vm has them."""
    try:
        with signals_raise():
            if arguments[:1] == ["--box"] and len(arguments) == 2:
                write_box(Path(arguments[1]))
                return 0
            return whole_way(arguments)
    except Unavailable as problem:
        print(f"cannot use Vagrant: {problem}", file=sys.stderr)
        return UNAVAILABLE
    except VmError as problem:
        print(f"failed: {problem}", file=sys.stderr)
        return FAILED
    except Interrupted as interruption:
        print(f"==> {interruption}; the machine is gone", file=sys.stderr)
        return 128 + interruption.number


def write_box(target: Path) -> None:
    """Build the box and write it to a file."""
    needs.need_box()
    image = ensure_image(Recipe(box=True))
    with step(f"packing {target.name}"):
        box.pack(image, target)


def whole_way(pytest_arguments: list[str]) -> int:
    """Up, the tests, destroy; nothing is left, whatever happens on the way."""
    needs.need_machine()
    become_subreaper()
    with new_session() as session, nothing_left():
        write_box(session.home / "local.box")
        box.copy_project(project_files(ROOT), ROOT, session.project)
        give(session.home, session.user)
        with libvirtd(session):
            with step("vagrant box add"):
                session.do(
                    "vagrant", "--no-tty", "box", "add", "--name", BOX, str(session.home / "local.box")
                )
            with machine(session), step("vagrant/run-tests"):
                return session.call("./run-tests", *pytest_arguments)


@contextlib.contextmanager
def machine(session: Session) -> Iterator[None]:
    """`vagrant up`, and `vagrant destroy` at the end."""
    try:
        with step(f"vagrant up, as {session.user.pw_name}"):
            session.do("vagrant", "--no-tty", "up")
        yield
    finally:
        with step("vagrant destroy"):
            session.do("vagrant", "--no-tty", "destroy", "--force")


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Ends what is still running of all that was started meanwhile; there should be nothing."""
    try:
        yield
    finally:
        for pid in children():
            print(f"==> left behind, and killed now: {describe(pid)}", file=sys.stderr)
        kill_children()


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Says what happens, and how long it took."""
    print(f"==> {what}", flush=True)
    started = time.monotonic()
    yield
    print(f"==> {what}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
