"""The command line of the test VM: `python3 -m tests.vm build|run|shell|key`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from tests.vm import tools
from tests.vm.image import KERNELS, Recipe, ensure_image, find_image
from tests.vm.job import Job
from tests.vm.machine import Hardware, Scratch, run, signals_raise, temporary_directory
from tests.vm.problems import Interrupted, Unavailable, VmError

UNAVAILABLE = 77
FAILED = 125
# Emulation is many times slower than the host; a test that hangs should still be told from a slow one.
PYTEST_OPTIONS = "-p no:cacheprovider -o timeout=900"

EPILOG = """
exit codes: the command's own · 77 the VM cannot be had on this host · 124 the command took too long ·
125 the VM itself failed · 128+N ended by signal N
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with signals_raise():
            return options.action(options)
    except Unavailable as problem:
        print(f"cannot use the test VM: {problem}", file=sys.stderr)
        return UNAVAILABLE
    except VmError as problem:
        print(f"the test VM failed: {problem}", file=sys.stderr)
        return FAILED
    except Interrupted as interruption:
        print(f"==> {interruption}; the VM is gone", file=sys.stderr)
        return 128 + interruption.number


def _build(options: argparse.Namespace) -> int:
    print(ensure_image(_recipe(options)).directory)
    return 0


def _key(options: argparse.Namespace) -> int:
    recipe = _recipe(options)
    print(recipe.key(), "built" if find_image(recipe) else "not built")
    return 0


def _run(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        print("say what to run, after --", file=sys.stderr)
        return 2
    tools.need_run_tools()
    image = ensure_image(_recipe(options))
    environment = _environment(options)
    if options.junit:
        environment["PYTEST_ADDOPTS"] += " --junitxml=/out/junit.xml"
    job = Job(command, options.timeout, environment, options.install)
    with temporary_directory() as results:
        code = run(image, job, _hardware(options), results, sys.stdout)
        _hand_over(options, results)
        return code


def _hand_over(options: argparse.Namespace, results: Path) -> None:
    if options.junit:
        report = results / "junit.xml"
        if report.exists():
            options.junit.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report, options.junit)
        else:
            print("==> the command left no JUnit report", file=sys.stderr)
    if options.out:
        shutil.copytree(results, options.out, dirs_exist_ok=True)


def _shell(options: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        print("the shell needs a terminal", file=sys.stderr)
        return 2
    tools.need_run_tools()
    image = ensure_image(_recipe(options))
    size = os.get_terminal_size()
    job = Job((), None, _environment(options), options.install, (size.columns, size.lines))
    print("==> booting; leave with exit, or with Ctrl-A X", flush=True)
    with temporary_directory() as results:
        return run(image, job, _hardware(options), results, sys.stdout)


def _recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(options.suite, options.kernel)


def _hardware(options: argparse.Namespace) -> Hardware:
    return Hardware(options.memory, options.cpus, options.kvm, options.scratch)


def _environment(options: argparse.Namespace) -> dict[str, str]:
    found = {
        "BLACKHOLE_CG_TEST_VM": "1",
        "PYTEST_ADDOPTS": PYTEST_OPTIONS,
        "TERM": os.environ.get("TERM", "dumb"),
    }
    for assignment in options.env:
        name, equals, value = assignment.partition("=")
        found[name] = value if equals else os.environ.get(name, "")
    return found


def _scratch(text: str) -> Scratch:
    size, _, iops = text.partition(":")
    return Scratch(int(size), int(iops or 0))


def _parser() -> argparse.ArgumentParser:
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument(
        "--suite", choices=KERNELS, default="bookworm", help="the Debian to use (%(default)s)"
    )
    recipe.add_argument("--kernel", default="", help="6.1 or 6.12 (the suite's own)")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--memory", type=int, default=2048, metavar="MIB", help="default %(default)s")
    machine.add_argument("--cpus", type=int, default=2, help="default %(default)s")
    machine.add_argument("--kvm", action="store_true", help="use KVM; emulated without")
    machine.add_argument(
        "--scratch",
        type=_scratch,
        action="append",
        default=[],
        metavar="MIB[:IOPS]",
        help="add a disk, throttled to so many operations a second; may be repeated",
    )
    machine.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help="set a variable")
    machine.add_argument(
        "--no-install", dest="install", action="store_false", help="leave out blackhole-cg as a command"
    )

    parser = argparse.ArgumentParser(prog="tests.vm", description="The test VM.", epilog=EPILOG)
    commands = parser.add_subparsers(required=True, metavar="build|run|shell|key")
    build = commands.add_parser("build", parents=[recipe], help="build the image unless it is there")
    build.set_defaults(action=_build)
    job = commands.add_parser("run", parents=[recipe, machine], help="run a command as root")
    job.add_argument("--timeout", type=float, default=1200, metavar="SECONDS", help="default %(default)s")
    job.add_argument("--junit", type=Path, metavar="FILE", help="where to put pytest's JUnit report")
    job.add_argument(
        "--out", type=Path, metavar="DIRECTORY", help="where to put what the command left in /out"
    )
    job.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    job.set_defaults(action=_run)
    shell = commands.add_parser("shell", parents=[recipe, machine], help="a shell in the VM")
    shell.set_defaults(action=_shell)
    key = commands.add_parser("key", parents=[recipe], help="print the image's key and whether it is there")
    key.set_defaults(action=_key)
    return parser


if __name__ == "__main__":
    sys.exit(main())
