"""The command line: names the commands, and is the one place where an error becomes an exit code.

Each command lives in a module of its own, imported only when it is the one that was asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import click

from blackhole_cg import __version__
from blackhole_cg.errors import BlackholeError, ConfigError, NoSupervisorError

EXIT_FAILED: Final = 1
EXIT_NO_SUPERVISOR: Final = 3
EXIT_CONFIG: Final = 78  # EX_CONFIG. Source: sysexits.h(3head)
EXIT_INTERRUPTED: Final = 128 + 2

COMMANDS: Final = {
    "run": "run",
    "check": "check",
    "config": "config",
    "import": "import_files",
    "status": "status",
    "health": "health",
    "endpoints": "endpoints",
    "start": "change",
    "stop": "change",
    "restart": "change",
    "reset": "change",
    "plan": "plan",
    "apply": "plan",
    "reload": "reload",
    "rollback": "plan",
    "upgrade": "upgrade",
    "logs": "logs",
    "events": "events",
    "why": "why",
    "monitor": "monitor",
    "top": "top",
    "metrics": "metrics",
    "cgroups": "cgroups",
    "doctor": "doctor",
}
"""Command -> its module in this package, where it is found by its own name plus "_command"."""

HIDDEN: Final = {"upgrade-check": "upgrade_check"}
"""The same for commands that only programs ask for."""

EXAMPLES: Final = """
\b
Examples:
  blackhole-cg check --config blackhole.yaml    is it valid?
  blackhole-cg run --config blackhole.yaml      until Ctrl-C
  blackhole-cg status                           from another terminal
  blackhole-cg logs web --follow
  blackhole-cg restart web worker

\b
Exit codes:
  0 done   1 it failed, the reason is on stderr   2 wrong usage
  3 no supervisor answers   78 the configuration is invalid
"""


class Commands(click.Group):
    """The commands of the table, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is no such."""
        name = {**COMMANDS, **HIDDEN}.get(cmd_name)
        if name is None:
            return None
        module = import_module(f"blackhole_cg.cli.{name}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, or suggest the closest."""
        if args and args[0] not in {**COMMANDS, **HIDDEN} and not args[0].startswith("-"):
            closest = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{closest[0]}'?" if closest else f"one of: {', '.join(COMMANDS)}"
            ctx.fail(f"no such command '{args[0]}' ({hint})")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error that is meant for a user ends here, as text and an exit code."""
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
            return answer
        except BrokenPipeError:
            _discard_output()  # the reader has seen enough, as `head` does: that is no failure
            ctx.exit(0)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BlackholeError as error:
            _report(error)
            ctx.exit(exit_code_of(error))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _print_error(f"{where}{error.strerror or error}")
            ctx.exit(EXIT_FAILED)


def exit_code_of(error: BlackholeError) -> int:
    """The contract's exit code for an error."""
    if isinstance(error, ConfigError) or getattr(error, "kind", None) == "invalid_config":
        return EXIT_CONFIG
    return EXIT_NO_SUPERVISOR if isinstance(error, NoSupervisorError) else EXIT_FAILED


def _report(error: BlackholeError) -> None:
    if isinstance(error, NoSupervisorError):
        _print_error(f"{error} (is it running? where is its --runtime-dir?)")
        return
    if exit_code_of(error) != EXIT_CONFIG:
        _print_error(str(error))
        return
    # One line each and nothing before the file name, so that editors can jump to the place.
    click.echo(str(error), err=True)
    count = len(str(error).splitlines())
    _print_error(f"the configuration is invalid: {count} error{'' if count == 1 else 's'}")


def _print_error(text: str) -> None:
    with suppress(BrokenPipeError):
        click.echo(f"blackhole-cg: {text}", err=True)


def _discard_output() -> None:
    """Point stdout to nowhere, since the interpreter flushes it once more when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@click.group(
    cls=Commands,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    subcommand_metavar="COMMAND ...",
)
@click.version_option(__version__, prog_name="blackhole-cg", message="%(prog)s %(version)s")
def cli() -> None:
    """Run the services of one Linux host, each in its own cgroup.

    `run` is the supervisor; the other commands ask it. They find it by its
    runtime directory: --runtime-dir, or BLACKHOLE_CG_RUNTIME_DIR.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of `blackhole-cg`; ends the process."""
    cli.main(args=arguments, prog_name="blackhole-cg")


if __name__ == "__main__":
    main()
