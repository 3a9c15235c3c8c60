"""How to run this very program, or a part of it, once more. Imports nothing: every start waits for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_RUN_MODULE: Final = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def python_command(module: str, *arguments: str) -> list[str]:
    """A command that runs a module of this very package with this interpreter.

    -P: with `python -m` alone Python would import from the current directory first, whoever's that is.
    """
    place = str(Path(__file__).parents[2])
    return [sys.executable, "-P", "-c", _RUN_MODULE, place, module, *arguments]


def own_command(*arguments: str) -> list[str]:
    """A command that runs this very program again, by the name by which it was started.

    An installation switches that name to a newer version, beside the one that runs; a module is found where
    this package is.
    """
    main = sys.modules["__main__"].__spec__
    if main is not None:  # python -m
        return python_command(main.name, *arguments)
    program = Path(sys.argv[0]).absolute()
    interpreter = [sys.executable] if program.is_file() and not os.access(program, os.X_OK) else []
    return [*interpreter, str(program), *arguments]
