"""`import`: from the configuration of another supervisor to blackhole.yaml."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blackhole_cg.cli.options import json_option
from blackhole_cg.errors import ConfigError, Diagnostic

if TYPE_CHECKING:
    from blackhole_cg.core.importers import Source

KINDS = ("supervisord", "procfile", "compose", "systemd")
STDOUT = Path("-")


@click.command("import", short_help="Turn the configuration of another supervisor into blackhole.yaml.")
@click.argument("kind", type=click.Choice(KINDS), metavar="|".join(KINDS))
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default="blackhole.yaml",
    show_default=True,
    help="The file to write, which must not exist; - for stdout.",
)
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@json_option
def import_command(kind: str, files: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Turn the configuration of another supervisor into blackhole.yaml.

    Every setting that could not be carried over, or not exactly, is listed, and
    stands as a comment in the file. Starts nothing; read the file before you run it.

    \b
    Examples:
      blackhole-cg import supervisord /etc/supervisor/conf.d/*.conf
      blackhole-cg import procfile Procfile --output -
      blackhole-cg import compose compose.yaml
      blackhole-cg import systemd /etc/systemd/system/{web,db}.service
    """
    from blackhole_cg.core.importers import IMPORTERS, render

    draft = IMPORTERS[kind]([_read(path) for path in files])
    text = render(draft, [str(path) for path in files])
    if output == STDOUT:
        click.echo(text, nl=False)
    else:
        _write(output, text, force)
    if as_json:
        facts = {"services": list(draft.services), "notes": [asdict(note) for note in draft.notes]}
        click.echo(json.dumps(facts), err=output == STDOUT)
        return
    to_stderr = output == STDOUT
    for note in draft.notes:
        click.echo(str(note), err=to_stderr)
    count, left = len(draft.services), len(draft.notes)
    click.echo(
        f"{'' if to_stderr else f'{output}: '}{count} service{'' if count == 1 else 's'}, "
        f"{left or 'no'} setting{'' if left == 1 else 's'} not carried over exactly",
        err=to_stderr,
    )


def _read(path: Path) -> Source:
    from blackhole_cg.core.importers import Source
    from blackhole_cg.kernel.file_reader import FileReader

    try:
        text = FileReader().read_bytes(str(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([Diagnostic(str(path), 0, 0, "", "is not UTF-8 text")]) from None
    except OSError as error:
        raise ConfigError([Diagnostic(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from None
    directory = path.absolute().parent
    return Source(str(path), text, str(directory), frozenset(entry.name for entry in directory.iterdir()))


def _write(path: Path, text: str, force: bool) -> None:
    """The whole file or nothing; it may come to hold secrets, so it is for its owner alone."""
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists (write elsewhere with --output, or over it with --force)")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
