"""The shape of the package: who imports whom, what stays pure, what starts no thread, how long things get.

Every check is a function from a directory to a list of complaints, and is tried on toy trees too.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "blackhole_cg"
ROOT = Path(__file__).parent.parent / PACKAGE

LAYERS = (
    {"errors"},
    {"core"},
    {"kernel", "observe"},
    {"control"},
    {"runner"},
    {"supervisor"},
    {"cli"},
    {"", "__main__"},  # the package itself: its public names
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Core and errors see data only: no I/O, no clock, no randomness, no processes, no logging.
IMPURE = {
    "aiohttp", "asyncio", "ctypes", "fcntl", "glob", "http", "io", "logging", "mmap", "multiprocessing", "os",
    "prctl", "psutil", "pyroute2", "random", "resource", "secrets", "select", "selectors", "shutil", "socket",
    "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input"}
IMPURE_ATTRIBUTES = {"now", "utcnow", "today"}  # of datetime and date
PURE_OF_PATHLIB = {"PurePath", "PurePosixPath"}
OF_CONFIG_ONLY = {"pydantic", "pydantic_core", "yaml"}
CONFIG = {("core", "config"), ("cli", "config")}  # what reads configuration text, and what shows it

THREADED_MODULES = {"_thread", "concurrent", "multiprocessing"}
THREADED_NAMES = {
    "ThreadPoolExecutor", "ProcessPoolExecutor", "to_thread", "run_in_executor", "getaddrinfo", "getnameinfo",
    "FileResponse", "start_new_thread",
}  # fmt: skip
THREADS = {"threading.Thread", "threading.Timer"}

HEAVY = {
    "grpc",
    "grpclib",
    "prometheus_client",
    "psutil",
    "pyroute2",
    "rich",
    "textual",
}  # each costs memory in every supervisor

MAX_FUNCTION_LINES = 50  # the aim is 40
MAX_FILE_LINES = 400
MAX_INIT_ARGUMENTS = 6


@dataclass(frozen=True)
class Import:
    """One imported module: absolute dotted name, the name taken from it, and where."""

    module: str
    name: str
    place: str
    is_top_level: bool

    @property
    def top(self) -> str:
        """The distribution or standard module: "aiohttp" of "aiohttp.web"."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: Path
    parts: tuple[str, ...]  # below the package, without ".py": ("core", "config", "models")
    tree: ast.Module
    lines: int

    @property
    def layer(self) -> str:
        """The first name below the package; "" for the package's own __init__."""
        return "" if self.parts == ("__init__",) else self.parts[0]

    def place(self, line: int) -> str:
        return f"{'/'.join((PACKAGE, *self.parts))}.py:{line}"


def modules(root: Path) -> Iterator[Module]:
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        parts = path.relative_to(root).with_suffix("").parts
        yield Module(path, parts, ast.parse(text), text.count("\n"))


def imports(module: Module) -> Iterator[Import]:
    """Every import, wherever it is written; relative ones are resolved."""
    inside_functions = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        top_level = id(node) not in inside_functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", module.place(node.lineno), top_level)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(module, node)
            for alias in node.names:
                yield Import(origin, alias.name, module.place(node.lineno), top_level)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The dotted name of the module that is imported from."""
    if node.level == 0:
        return node.module or ""
    package = (PACKAGE, *module.parts[:-1])  # the file's own package, also for __init__.py
    origin = package[: len(package) - node.level + 1]
    return ".".join((*origin, node.module) if node.module else origin)


def target_layer(imported: Import) -> str | None:
    """The layer an import reaches into; None when it leaves the package."""
    dotted = f"{imported.module}.{imported.name}" if imported.name else imported.module
    names = dotted.split(".")
    if names[0] != PACKAGE or imported.name.startswith("__"):  # __version__ is everybody's
        return None
    return names[1] if len(names) > 1 and names[1] in RANKS else ""


def check_direction(root: Path) -> list[str]:
    """errors < core < {kernel, observe} < control < runner < supervisor < cli."""
    found = []
    for module in modules(root):
        if module.layer not in RANKS:
            found.append(f"{module.place(1)}: '{module.layer}' is in no layer")
            continue
        for imported in imports(module):
            target = target_layer(imported)
            if target is None or target == module.layer:
                continue
            if RANKS[target] >= RANKS[module.layer]:
                found.append(f"{imported.place}: {module.layer} must not import {target or PACKAGE}")
    return found


def check_pure_core(root: Path) -> list[str]:
    """Core and errors have no effects; pydantic and yaml stay in core/config."""
    found = []
    for module in modules(root):
        in_config = module.parts[:2] in CONFIG
        for imported in imports(module):
            if imported.top in OF_CONFIG_ONLY and not in_config:
                found.append(f"{imported.place}: only the configuration may import {imported.top}")
        if module.layer in {"core", "errors"}:
            found += impurities(module)
    return found


def impurities(module: Module) -> Iterator[str]:
    may_use = {"os"} if module.layer == "errors" else set()  # os.strerror, which is a table
    for imported in imports(module):
        if imported.top in IMPURE - may_use:
            yield f"{imported.place}: {module.layer} must not import {imported.top}"
        if imported.top == "pathlib" and imported.name not in PURE_OF_PATHLIB:
            yield f"{imported.place}: {module.layer} may use only pure paths of pathlib"
    for node in executed_on_import_or_call(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            yield f"{module.place(node.lineno)}: {module.layer} must not call {ast.unparse(node.func)}()"
        if isinstance(node, ast.Attribute) and asks_clock(node):
            yield f"{module.place(node.lineno)}: {module.layer} must not ask the clock"


def executed_on_import_or_call(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but those under `if __name__ == "__main__"`, where a generated page may be printed."""
    for statement in tree.body:
        if not (isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)):
            yield from ast.walk(statement)


def asks_clock(node: ast.Attribute) -> bool:
    return node.attr in IMPURE_ATTRIBUTES and ast.unparse(node.value).split(".")[-1] in {"datetime", "date"}


def check_single_thread(root: Path) -> list[str]:
    """The supervisor forks, so it has one thread; only the kernel edge may import threading, to check it."""
    found = []
    for module in modules(root):
        for imported in imports(module):
            if imported.top in THREADED_MODULES or (imported.top == "threading" and module.layer != "kernel"):
                found.append(f"{imported.place}: {imported.top} starts threads")
            if imported.name in THREADED_NAMES or f"{imported.module}.{imported.name}" in THREADS:
                found.append(f"{imported.place}: {imported.name} starts a thread")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and (
                node.attr in THREADED_NAMES or ast.unparse(node) in THREADS
            ):
                found.append(f"{module.place(node.lineno)}: {node.attr} starts a thread")
    return found


def check_heavy_modules(root: Path) -> list[str]:
    """Modules that cost megabytes are imported where they are used."""
    return [
        f"{imported.place}: import {imported.top} inside the function that needs it"
        for module in modules(root)
        for imported in imports(module)
        if imported.is_top_level and imported.top in HEAVY
    ]


def check_sizes(root: Path) -> list[str]:
    """Functions, files and constructors stay small enough to be read at once."""
    found = []
    for module in modules(root):
        if module.lines > MAX_FILE_LINES:
            found.append(f"{module.place(1)}: {module.lines} lines, more than {MAX_FILE_LINES}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found += too_big(module, node)
    return found


def too_big(module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    lines = code_lines(node)
    if lines > MAX_FUNCTION_LINES:
        yield f"{module.place(node.lineno)}: {node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"
    count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1  # without self
    if node.name == "__init__" and count > MAX_INIT_ARGUMENTS:
        yield f"{module.place(node.lineno)}: __init__ takes {count} arguments, more than {MAX_INIT_ARGUMENTS}"


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from `def` to its end, without the docstring."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return total
    docstring = node.body[0]
    return total - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


CHECKS: tuple[Callable[[Path], list[str]], ...] = (
    check_direction,
    check_pure_core,
    check_single_thread,
    check_heavy_modules,
    check_sizes,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_keeps_its_shape(check: Callable[[Path], list[str]]) -> None:
    assert list(modules(ROOT)), "no module found"
    assert "\n".join(check(ROOT)) == ""


LONG = "    x = 1\n" * MAX_FUNCTION_LINES

WRONG = {
    check_direction: {
        "core imports kernel": ("core/a.py", "from blackhole_cg.kernel import cgroup"),
        "core imports kernel lazily": ("core/a.py", "def f():\n    import blackhole_cg.kernel.cgroup"),
        "core imports a layer from the package": ("core/a.py", "from blackhole_cg import runner"),
        "observe imports kernel": ("observe/a.py", "from blackhole_cg.kernel.pidfd import wait"),
        "kernel imports observe": ("kernel/a.py", "import blackhole_cg.observe.monitor"),
        "observe imports supervisor relatively": ("observe/a.py", "from ..supervisor import main"),
        "a package imports upwards relatively": ("core/config/__init__.py", "from ...cli import x"),
        "control imports the runner's seam": ("control/a.py", "from ..runner.host import Host"),
        "supervisor imports cli for its types": (
            "supervisor/a.py",
            "if TYPE_CHECKING:\n    from ..cli import x",
        ),
        "errors imports core": ("errors.py", "from blackhole_cg.core import words"),
        "a layer imports the package's public names": ("cli/a.py", "from blackhole_cg import Supervisor"),
        "a module of no layer": ("utils.py", ""),
    },
    check_pure_core: {
        "core imports asyncio": ("core/a.py", "import asyncio"),
        "core imports os.path": ("core/a.py", "from os import path"),
        "core imports time in a function": ("core/a.py", "def f():\n    from time import monotonic"),
        "core touches files by pathlib": ("core/a.py", "from pathlib import Path"),
        "core opens a file": ("core/config/a.py", "text = open('x').read()"),
        "core asks the clock": ("core/a.py", "import datetime\nx = datetime.datetime.now()"),
        "runner imports pydantic": ("runner/a.py", "import pydantic"),
        "core imports yaml outside config": ("core/units.py", "import yaml"),
    },
    check_single_thread: {
        "an executor": ("observe/a.py", "from concurrent.futures import ThreadPoolExecutor"),
        "threading outside the kernel edge": ("supervisor/a.py", "import threading"),
        "a thread in the kernel edge": ("kernel/a.py", "import threading\nthreading.Thread()"),
        "a timer in the kernel edge": ("kernel/a.py", "from threading import Timer"),
        "a resolver's thread": ("observe/a.py", "async def f(loop):\n    await loop.getaddrinfo('a', 1)"),
        "work handed to a thread": ("cli/a.py", "from asyncio import to_thread"),
    },
    check_heavy_modules: {
        "pyroute2 at the top": ("kernel/a.py", "from pyroute2.netlink import nlmsg"),
        "rich at the top, in a try": ("cli/a.py", "try:\n    import rich.table\nexcept E:\n    pass"),
    },
    check_sizes: {
        "a long function": ("core/a.py", "def f():\n" + LONG),
        "a long method": ("core/a.py", "class C:\n  async def f():\n" + LONG),
        "a long file": ("core/a.py", "x = 1\n" * (MAX_FILE_LINES + 1)),
        "a greedy constructor": (
            "core/a.py",
            "class C:\n    def __init__(self, a, b, c, *, d, e, f, g): ...",
        ),
    },
}
WRONG_CASES = [
    pytest.param(check, path, text, id=name)
    for check, cases in WRONG.items()
    for name, (path, text) in cases.items()
]

RIGHT = {
    "down": (
        "cli/a.py",
        "from blackhole_cg.supervisor import x\nfrom ..control.client import y\nfrom . import b",
    ),
    "within a layer": ("kernel/a.py", "from . import cgroup\nfrom .cgroup import Cgroup\nimport threading"),
    "heavy where it is used": ("cli/b.py", "import click\n\ndef f():\n    import rich.table"),
    "the version": ("cli/b.py", "from blackhole_cg import __version__"),
    "config may parse": ("core/config/models.py", "import pydantic, yaml\nfrom pathlib import PurePosixPath"),
    "a generator of a page": ("core/a.py", 'def f(): ...\n\nif __name__ == "__main__":\n    print(f())'),
    "an event called Timer": ("core/b.py", "from .a import Timer"),
    "errors may name errno": ("errors.py", "import os"),
    "a long docstring": ("core/a.py", 'def f():\n    """' + "word\n" * 60 + '    """\n    return 1'),
    "the public names": ("__init__.py", "from blackhole_cg.supervisor import x"),
}


def plant(root: Path, path: str, text: str) -> Path:
    file = root / PACKAGE / path
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n", encoding="utf-8")
    return root / PACKAGE


@pytest.mark.parametrize(("check", "path", "text"), WRONG_CASES)
def test_check_finds_what_is_wrong(
    tmp_path: Path, check: Callable[[Path], list[str]], path: str, text: str
) -> None:
    complaints = check(plant(tmp_path, path, text))
    assert len(complaints) >= 1
    assert all(complaint.startswith(f"{PACKAGE}/{path}:") for complaint in complaints)


@pytest.mark.parametrize(("path", "text"), RIGHT.values(), ids=RIGHT)
def test_checks_accept_what_is_right(tmp_path: Path, path: str, text: str) -> None:
    root = plant(tmp_path, path, text)
    assert [complaint for check in CHECKS for complaint in check(root)] == []
