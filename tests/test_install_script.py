"""What tools/install.sh does with files: in a user's home directory, with a stand-in for the set-up."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# In place of a virtual environment: the command, which says which installation it is of.
SETUP = """#!/bin/sh
mkdir -p "$VENV/bin"
printf '#!/bin/sh\\necho %s\\n' "$VERSION" >"$VENV/bin/blackhole-cg"
chmod +x "$VENV/bin/blackhole-cg"
[ "$VERSION" != broken ]
"""


class Home:
    """A copy of the tree's installation, and an empty home directory to install into."""

    def __init__(self, directory: Path) -> None:
        self.tree, self.path = directory / "tree", directory / "home"
        shutil.copytree(ROOT / "systemd", self.tree / "systemd")
        (self.tree / "tools").mkdir()
        shutil.copy(ROOT / "tools/install.sh", self.tree / "tools")
        (self.tree / "tools/setup.sh").write_text(SETUP)
        (self.tree / "tools/setup.sh").chmod(0o755)
        self.path.mkdir()
        self.prefix = self.path / ".local/share/blackhole-cg"
        self.command = self.path / ".local/bin/blackhole-cg"
        self.config = self.path / ".config/blackhole-cg/blackhole.yaml"

    def script(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.path),
            "XDG_RUNTIME_DIR": str(self.path / "run"),
            **variables,
        }
        command = [self.tree / "tools/install.sh", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    def install(self, version: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.script("install", "--user", VERSION=version, **variables)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def says(command: Path) -> str:
    return subprocess.run([command], capture_output=True, text=True, check=True).stdout.strip()


def test_installing_again_switches_to_the_new_one_and_keeps_the_old_one_and_the_configuration(home: Home):
    assert home.install("one").returncode == 0
    home.config.write_text("mine")
    assert home.install("two").returncode == 0
    assert says(home.command) == "two"
    assert says(home.prefix / "venv-1/bin/blackhole-cg") == "one", "a supervisor may still run from it"
    assert home.install("three").returncode == 0
    assert says(home.command) == "three"
    assert says(home.prefix / "venv-2/bin/blackhole-cg") == "two"
    assert home.config.read_text() == "mine"
    unit = (home.path / ".local/share/systemd/user/blackhole-cg.service").read_text()
    assert f"ExecStart={home.prefix}/bin/blackhole-cg run" in unit
    assert "@" not in unit.replace("user@%U", "")


def test_an_installation_that_fails_leaves_nothing(home: Home):
    assert home.install("broken").returncode != 0
    assert home.files() == set()
    assert not home.prefix.exists()


def test_an_upgrade_that_fails_leaves_what_was(home: Home):
    home.install("one")
    before = home.files()
    assert home.install("broken").returncode != 0
    assert home.files() == before
    assert says(home.command) == "one"


def test_uninstall_leaves_the_configuration_and_what_is_not_its_own(home: Home):
    home.install("one")
    (home.prefix / "notes").write_text("mine")
    other = home.path / ".local/bin/other"
    other.write_text("mine")
    done = home.script("uninstall", "--user")
    assert done.returncode == 0, done.stderr
    assert home.files() == {
        ".config/blackhole-cg/blackhole.yaml",
        ".local/bin/other",
        ".local/share/blackhole-cg/notes",
    }
    assert home.script("uninstall", "--user").returncode == 0, "again: there is nothing to do"


def test_a_prefix_that_is_in_use_for_something_else_is_refused(home: Home):
    usr_local = home.path / "usr/local"
    (usr_local / "bin").mkdir(parents=True)
    done = home.install("one", PREFIX=str(usr_local))
    assert (done.returncode, home.files()) == (1, set())
    assert "has to be a directory of blackhole-cg's own" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["instal"], ["install", "--usr"], ["", "--user"]])
def test_wrong_usage_does_nothing(home: Home, arguments: list[str]):
    done = home.script(*arguments)
    assert (done.returncode, home.files()) == (2, set())
    assert done.stderr == "usage: tools/install.sh install|uninstall [--user]\n"
