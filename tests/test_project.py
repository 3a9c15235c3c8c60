"""What belongs to the project besides its package: pins, make targets, links, licence, tidy files."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import report

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL_BLOCKS = re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL)

# Patterns that do not match their own text.
REGISTRY_HOSTS = re.compile(r"pypi[.]org|python[h]osted|debian[.]org|ubuntu[.]com")
MACHINE_PATHS = re.compile(r"(?<![\w.>}-])/(?:work/|root/[.]|tmp/dev-[v]env)")


def tracked_files() -> list[Path]:
    """The files under version control; without git, those that would be."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        paths = [ROOT / name for name in listing.stdout.decode().rstrip("\0").split("\0")]
        return [path for path in paths if path.is_file()]
    skipped = {
        ".git",
        ".venv",
        ".demo",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
    }
    return [path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.parts)]


def tracked_texts() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data:
            yield str(path.relative_to(ROOT)), data.decode("utf-8")


def find_in_texts(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


# ---- files ----


def test_no_file_names_a_registry() -> None:
    assert find_in_texts(REGISTRY_HOSTS) == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert find_in_texts(MACHINE_PATHS) == []


@pytest.mark.parametrize("line", ["see {}work/notes", "'{}root/.cache/x'", "{}tmp/dev-venv/bin/python"])
def test_machine_paths_are_found(line: str) -> None:
    assert MACHINE_PATHS.search(line.format("/"))


@pytest.mark.parametrize("line", ["network{}interfaces", "<cgroup>{}work/", "{{base}}{}work/", "{}root/web"])
def test_other_paths_are_left_alone(line: str) -> None:
    assert not MACHINE_PATHS.search(line.format("/"))


def test_every_text_ends_with_one_newline() -> None:
    wrong = [
        name for name, text in tracked_texts() if text and (not text.endswith("\n") or text.endswith("\n\n"))
    ]
    assert wrong == []


def test_licence_is_the_one_that_is_declared() -> None:
    assert PYPROJECT["project"]["license"] == "MIT"
    for name in PYPROJECT["project"]["license-files"]:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text.startswith("MIT License")
        assert "WITHOUT WARRANTY OF ANY KIND" in text


# ---- pins ----


def read_pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "constraints.txt has lines that are no pins"
    made: dict[str, str] = {canonicalize_name(name): version for name, version in pins}
    assert len(made) == len(pins), "constraints.txt pins something twice"
    return made


def required() -> list[Requirement]:
    """Everything pyproject.toml names: to run, to test, to build."""
    project = PYPROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return [
        Requirement(text)
        for text in [*project["dependencies"], *extras, *PYPROJECT["build-system"]["requires"]]
    ]


@pytest.mark.parametrize("requirement", required(), ids=str)
def test_requirement_is_pinned_to_a_version_it_accepts(requirement: Requirement) -> None:
    version = read_pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def needs_of(requirement: Requirement) -> Iterator[str]:
    """The distributions a requirement brings along, itself included, as far as they are installed here."""
    pending, seen = [requirement], set[str]()
    while pending:
        item = pending.pop()
        name = canonicalize_name(item.name)
        if name in seen:
            continue
        seen.add(name)
        yield name
        try:
            needed = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue  # build tools need not be here
        extras = item.extras or {""}
        pending += [
            need
            for need in needed
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
        ]


def test_what_requirements_bring_along_is_pinned_too() -> None:
    brought = {name for requirement in required() for name in needs_of(requirement)}
    assert sorted(brought - set(read_pins())) == []


# ---- make ----


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_make_has_the_promised_targets_and_explains_each() -> None:
    wanted = {
        "help",
        "run",
        "test",
        "vm",
        "chaos",
        "report",
        "vagrant",
        "lint",
        "bench",
        "setup",
        "install",
        "uninstall",
        "clean",
    }
    assert make_targets() == wanted
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in shown.stdout.splitlines()} == make_targets()


@pytest.mark.parametrize(
    "script",
    [
        "tools/setup.sh",
        "tools/install.sh",
        ".ci/run",
        *(f"vagrant/{name}" for name in ("provision", "run-tests", "test-inside")),
    ],
)
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = path.read_text(encoding="utf-8").splitlines()[0].split("/")[-1].split()[-1]
    subprocess.run([shell, "-n", str(path)], check=True)


def test_set_up_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([ROOT / "tools/setup.sh", "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: tools/setup.sh [run|test|install]\n")


# ---- nothing is left running ----


def run_reaped(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/run_reaped.py"), "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_run_reaped_passes_the_exit_code_on(script: str, code: int) -> None:
    done = run_reaped(script)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("script", ["sleep 1000 &", "setsid sh -c 'sleep 1000 & sleep 1000' & exit 0"])
def test_run_reaped_finds_and_ends_what_was_left(script: str) -> None:
    done = run_reaped(script + " echo $!")
    assert done.returncode == 1
    assert "left behind by sh, and killed now:\n  pid " in done.stderr
    pids = re.findall(r"pid (\d+):", done.stderr)
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_run_reaped_that_is_ended_ends_all_that_it_started() -> None:
    script = "setsid sh -c 'echo $$; exec sleep 1000' & wait"
    command = [sys.executable, str(ROOT / "tools/run_reaped.py"), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pid}").exists()


# ---- README ----


def readme_links() -> set[str]:
    return {
        link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link
    } - {""}


@pytest.mark.parametrize("link", sorted(readme_links()))
def test_readme_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def readme_commands(program: str) -> set[str]:
    """The first argument of each call of `program` in README's shell blocks and tables."""
    lines = [line.lstrip("$ ") for block in SHELL_BLOCKS for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", README)
    calls = (
        shlex.split(line.partition("#")[0]) for line in lines if f"{program} " in line and "'" not in line
    )
    return {call[1] for call in calls if call[0].endswith(program) and call[1][0] not in "-."}


def test_readme_names_only_make_targets_that_exist() -> None:
    assert {"run", "test"} <= readme_commands("make") <= make_targets()


def test_readme_names_only_commands_that_exist() -> None:
    from blackhole_cg.cli.main import cli

    named = readme_commands("blackhole-cg")
    assert (
        {"run", "check", "status", "logs", "events", "reset"}
        <= named
        <= set(cli.list_commands(click.Context(cli)))
    )


# ---- figures ----


def test_figures_are_put_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- single: written by make bench -->\nold\n<!-- single: end -->\nb\n")
    report.write_page("single", "new \\1", page)
    assert page.read_text() == "a\n<!-- single: written by make bench -->\nnew \\1\n<!-- single: end -->\nb\n"
    with pytest.raises(ValueError, match="'scaling' are not there once"):
        report.write_page("scaling", "new", page)


def test_figures_page_has_the_markers() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    for part in ("single", "scaling", "probes", "monitor"):
        assert text.count(f"<!-- {part}: written by make bench -->") == 1
        assert text.count(f"<!-- {part}: end -->") == 1


def test_editor_can_find_the_schema() -> None:
    """`config schema` prints one JSON document, as README says."""
    script = "from blackhole_cg.cli.main import main; main(['config', 'schema'])"
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "services" in json.loads(printed.stdout)["properties"]
