"""The kept reading of a configuration: used while all of it is as it was, and never else. Real files."""

from __future__ import annotations

import grp
import os
import pickle
import pwd
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blackhole_cg.core.spec import SupervisorSpec
from blackhole_cg.errors import ConfigError
from blackhole_cg.kernel import config_identity, config_process
from blackhole_cg.kernel.asked import Asked, AskedVariables
from blackhole_cg.kernel.config_cache import NAME, ConfigCache
from blackhole_cg.kernel.config_process import FirstReading, reply
from blackhole_cg.kernel.snapshot import Snapshot

ROOT = Path(__file__).parents[2]
PROGRAM = "#!/bin/sh\nexec sleep infinity\n"
MAIN = """\
include: conf.d/*.yaml
runtime: {orchestrator: {services_dir: bin, discover: true}}
services:
  web:
    command: ./program --token ${TOKEN} --level ${LEVEL:-low}
    env_file: web.env
    data_dir: data/web
  named: {command: sh -c true, user: root, group: root}
"""
FRAGMENT = "services: {more: {command: ../program}}\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@dataclass
class Place:
    """A configuration, and the cache of it."""

    directory: Path

    @property
    def main(self) -> Path:
        return self.directory / "blackhole.yaml"

    @property
    def runtime_dir(self) -> Path:
        return self.directory / "run"

    @property
    def file(self) -> Path:
        return self.runtime_dir / NAME

    @property
    def cache(self) -> ConfigCache:
        return ConfigCache(self.main, self.runtime_dir)

    def add_program(self, name: str, mode: int = 0o755) -> None:
        path = self.directory / "bin" / name / name
        path.parent.mkdir(parents=True)
        path.write_text(PROGRAM)
        path.chmod(mode)

    def read(self) -> SupervisorSpec:
        """Read it as the process that reads does, and keep that."""
        said = reply((str(self.main), str(self.runtime_dir), (), Snapshot()))
        assert not isinstance(said, list), said
        cache = self.cache
        cache.keep(said[2].identity, pickle.dumps(said))
        cache.write()
        return said[0]

    def kept(self) -> SupervisorSpec | None:
        """What the next start would take from the cache."""
        known = self.cache.load(os.environ)
        return None if known is None else known[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("LEVEL", "set back afterwards")
    monkeypatch.delenv("LEVEL")
    place = Place(tmp_path)
    for name in ("conf.d", "run", "data"):
        (tmp_path / name).mkdir()
    place.main.write_text(MAIN if os.geteuid() == 0 else MAIN.replace("user: root, group: root", ""))
    (tmp_path / "conf.d" / "more.yaml").write_text(FRAGMENT)
    (tmp_path / "web.env").write_text("A=1\n")
    (tmp_path / "program").write_text(PROGRAM)
    (tmp_path / "program").chmod(0o755)
    place.add_program("found")
    place.add_program("refused", 0o644)
    return place


def test_what_was_read_is_known_while_nothing_changes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.kept() is None
    spec = place.read()
    assert list(spec.services) == ["web", "named", "more", "found"]
    monkeypatch.setenv("NOBODY_LOOKED_AT", "this")
    place.main.touch()
    (place.directory / "unrelated").touch()
    known = place.cache.load(os.environ)
    assert known is not None
    assert known[0] == spec
    assert any("refused" in note for note in known[0].notes), "what a person should know is said again"
    assert str(place.main) in known[1].files, "it can be resolved again with other instances"


def rewrite(name: str, old: str, new: str) -> Callable[[Place], None]:
    """Same size, same time: only the content tells."""

    def change(place: Place) -> None:
        path = place.directory / name
        before = path.stat()
        text = path.read_text()
        assert old in text and len(old) == len(new)
        path.write_text(text.replace(old, new))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


def another_fragment(place: Place) -> None:
    (place.directory / "conf.d" / "new.yaml").write_text("services: {new: {command: ../program}}\n")


def new_program(place: Place) -> None:
    place.add_program("later")


CHANGES: dict[str, Callable[[Place], object]] = {
    "the file": rewrite("blackhole.yaml", "--token", "--taken"),
    "a fragment": rewrite("conf.d/more.yaml", "more", "less"),
    "a new fragment": another_fragment,
    "a fragment is gone": lambda place: (place.directory / "conf.d" / "more.yaml").unlink(),
    "the file is gone": lambda place: place.main.unlink(),
    "the file is a FIFO": lambda place: (place.main.unlink(), os.mkfifo(place.main)),
    "an env_file": rewrite("web.env", "A=1", "A=2"),
    "a new program": new_program,
    "a found program is gone": lambda place: (place.directory / "bin" / "found" / "found").unlink(),
    "a found program may not be executed": lambda place: (place.directory / "bin" / "found" / "found").chmod(
        0o644
    ),
    "a refused program would do now": lambda place: (place.directory / "bin" / "refused" / "refused").chmod(
        0o755
    ),
    "a service's program is gone": lambda place: (place.directory / "program").unlink(),
    "a service's program may not be executed": lambda place: (place.directory / "program").chmod(0o644),
    "a data directory is a file": lambda place: (place.directory / "data" / "web").touch(),
    "a variable": lambda _: os.environ.update(TOKEN="other"),
    "a variable is not set": lambda _: os.environ.pop("TOKEN"),
    "a variable that was not set": lambda _: os.environ.update(LEVEL="high"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_has_changed_is_read_anew(place: Place, change: Callable[[Place], object]) -> None:
    place.read()
    assert place.kept() is not None
    change(place)
    assert place.kept() is None


@needs_root
def test_a_program_that_anybody_may_write_to_is_seen(place: Place) -> None:
    place.read()
    (place.directory / "bin" / "found" / "found").chmod(0o777)
    assert place.kept() is None


@needs_root
@pytest.mark.parametrize("accounts", ["pwd", "grp"])
def test_an_account_that_is_gone_or_another_one_is_seen(
    place: Place, monkeypatch: pytest.MonkeyPatch, accounts: str
) -> None:
    def nobody(name: str) -> object:
        raise KeyError(name)

    place.read()
    monkeypatch.setattr(*((pwd, "getpwnam") if accounts == "pwd" else (grp, "getgrnam")), nobody)
    assert place.kept() is None


def test_another_file_or_place_is_read_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.read()
    other = place.directory / "other.yaml"
    other.write_bytes(place.main.read_bytes())
    assert ConfigCache(other, place.runtime_dir).load(os.environ) is None
    elsewhere = place.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / NAME).write_bytes(place.file.read_bytes())
    (elsewhere / NAME).chmod(0o600)
    assert ConfigCache(place.main, elsewhere).load(os.environ) is None
    monkeypatch.chdir(elsewhere)
    assert place.kept() is None, "relative names begin elsewhere"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that takes part in reading, in the place of the real ones."""
    package = tmp_path / "packages" / "takes_part"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("A = 1\n")
    (package / "inner" / "module.py").write_text("B = 1\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(config_identity, "PACKAGES", ("takes_part", "not_there"))
    return package


CODE_CHANGES: dict[str, Callable[[Path], object]] = {
    "a module": lambda package: (package / "inner" / "module.py").write_text("B = 2\n"),
    "a new module": lambda package: (package / "inner" / "later.py").touch(),
    "a module is gone": lambda package: (package / "inner" / "module.py").unlink(),
    "a module is another file": lambda package: (
        (package / "copy").write_text("A = 1\n"),
        (package / "copy").rename(package / "__init__.py"),
    ),
}


@pytest.mark.parametrize("change", CODE_CHANGES.values(), ids=CODE_CHANGES)
def test_what_other_code_has_read_is_read_anew(
    place: Place, package: Path, change: Callable[[Path], object]
) -> None:
    place.read()
    assert place.kept() is not None
    (package / "__pycache__").mkdir()
    assert place.kept() is not None
    change(package)
    assert place.kept() is None


@pytest.mark.parametrize(
    ("owner", "name", "value"), [(sys, "version", "3.99"), (os, "getresuid", lambda: (4, 5, 6))]
)
def test_another_python_or_user_reads_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object
) -> None:
    place.read()
    monkeypatch.setattr(owner, name, value)
    assert place.kept() is None


def test_nothing_is_kept_of_code_that_changed_under_the_reading(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = iter([b"a" * 32, b"b" * 32])
    monkeypatch.setattr(config_process, "identify", lambda *_: next(identities))
    place.read()
    assert not place.file.exists()


def test_nothing_is_kept_of_what_a_start_would_not_read(place: Place) -> None:
    place.main.write_text("templates: {t: {command: ./program}}\nservices: {web: {command: ./program}}\n")
    read = place.read()
    assert list(read.services) == ["web"]
    where = (str(place.main), str(place.runtime_dir))
    said = reply((*where, ({"template": "t", "id": "1"},), Snapshot()))
    assert not isinstance(said, list)
    assert (len(said[0].services), said[2].identity) == (2, None)
    said = reply((*where, (), Snapshot(files=said[1].files)))
    assert not isinstance(said, list)
    assert (said[0], said[2].identity) == (read, None), "it was resolved again, not read"


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def damage(data: bytes) -> Iterator[bytes]:
    for length in (0, 1, 18, 19, 40, 51, 60, 83, 84, len(data) // 2, len(data) - 1):
        yield data[:length]
    for place in (0, 20, 55, 90, len(data) // 2, len(data) - 1):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    yield data + b"x"
    yield b"\0" * len(data)


def test_a_torn_or_corrupt_file_is_not_used(place: Place) -> None:
    spec = place.read()
    whole = place.file.read_bytes()
    for data in damage(whole):
        place.file.write_bytes(data)
        assert place.kept() is None
    trace = place.directory / "trace"
    place.file.write_bytes(whole[:83] + pickle.dumps(Trap(trace)))
    assert place.kept() is None
    assert not trace.exists(), "what is not believed is not unpickled either"
    place.file.write_bytes(whole)
    assert place.kept() == spec


def linked(place: Place) -> None:
    place.file.rename(place.directory / "moved")
    place.file.symlink_to(place.directory / "moved")


def directory_in_its_place(place: Place) -> None:
    place.file.unlink()
    place.file.mkdir()


def fifo_in_its_place(place: Place) -> None:
    place.file.unlink()
    os.mkfifo(place.file, 0o600)


SUSPICIOUS: dict[str, Callable[[Place], object]] = {
    "others may read it": lambda place: place.file.chmod(0o604),
    "a group may write to it": lambda place: place.file.chmod(0o620),
    "a link": linked,
    "it has another name": lambda place: os.link(place.file, place.directory / "second"),
    "a directory": directory_in_its_place,
    "a FIFO": fifo_in_its_place,
    "others may put files there": lambda place: place.runtime_dir.chmod(0o777),
    "a group may put files there": lambda place: place.runtime_dir.chmod(0o770),
}


@pytest.mark.parametrize("change", SUSPICIOUS.values(), ids=SUSPICIOUS)
def test_a_file_that_is_not_ours_alone_is_not_used(place: Place, change: Callable[[Place], object]) -> None:
    place.read()
    change(place)
    assert place.kept() is None


@needs_root
def test_a_file_of_somebody_else_is_not_used(place: Place) -> None:
    place.read()
    os.chown(place.file, 1, -1)
    assert place.kept() is None
    os.chown(place.file, 0, -1)
    assert place.kept() is not None
    os.chown(place.runtime_dir, 1, -1)
    assert place.kept() is None


def test_it_is_ours_alone_and_takes_the_place_of_whatever_was_there(place: Place) -> None:
    elsewhere = place.directory / "elsewhere"
    elsewhere.write_text("mine")
    (place.runtime_dir / f"{NAME}.new").symlink_to(elsewhere)
    place.file.symlink_to(elsewhere)
    before = os.umask(0)
    try:
        spec = place.read()
    finally:
        os.umask(before)
    assert place.file.stat().st_mode & 0o777 == 0o600
    assert elsewhere.read_text() == "mine"
    assert place.kept() == spec
    assert os.listdir(place.runtime_dir) == [NAME]


def test_where_it_cannot_be_written_nothing_happens(place: Place) -> None:
    """A limit on file sizes fails as a full disk does: in the middle."""
    spec = place.read()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        place.read()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(place.runtime_dir) == [NAME], "half of one is not left"
    assert place.kept() == spec, "the one before is as good as it was"
    cache = place.cache
    cache.keep(b"x" * 32, b"reading")
    place.file.unlink()
    place.runtime_dir.rmdir()
    cache.write()
    cache.discard()
    assert place.kept() is None


def test_it_can_be_discarded_with_what_was_to_be_written(place: Place) -> None:
    place.read()
    cache = place.cache
    cache.keep(b"x" * 32, b"reading")
    cache.discard()
    cache.write()
    assert os.listdir(place.runtime_dir) == []


# ---- a start ----


def test_the_first_start_reads_and_the_next_one_begins_no_process(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FirstReading(place.main, place.runtime_dir)
    spec, snapshot = first.result()
    assert not place.file.exists(), "not before somebody has the time"
    first.cache.write()

    def refuse(*_: object) -> None:
        raise AssertionError("a process was begun")

    monkeypatch.setattr(config_process, "ConfigProcess", refuse)
    assert FirstReading(place.main, place.runtime_dir).result() == (spec, snapshot)


def test_what_is_wrong_is_said_as_without_a_cache(place: Place) -> None:
    place.read()
    place.main.write_text(MAIN.replace("env_file", "env_fil"))
    said = []
    for _ in range(2):
        reading = FirstReading(place.main, place.runtime_dir)
        with pytest.raises(ConfigError) as error:
            reading.result()
        said.append(str(error.value))
        reading.cache.write()
        place.file.unlink(missing_ok=True)
    assert said[0] == said[1]
    assert "env_fil" in said[0]
    assert not place.file.exists(), "nothing is kept of what is wrong"


def test_a_start_that_knows_needs_nothing_that_reads(place: Place) -> None:
    place.read()
    script = (
        "import sys; from pathlib import Path\n"
        "from blackhole_cg.kernel.config_process import FirstReading\n"
        "reading = FirstReading(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert reading._process is None and reading.result()[0].services\n"
        "print({'yaml', 'pydantic', 'asyncio', 'subprocess'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script, str(place.main), str(place.runtime_dir)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, cwd=Path.cwd(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in {"set()\n", "{'subprocess'}\n"}


def test_variables_are_noted_when_they_are_looked_at_and_cannot_be_listed() -> None:
    asked = Asked()
    variables = AskedVariables({"A": "1", "B": "2"}, asked)
    assert (variables.get("A"), variables.get("C"), "D" in variables) == ("1", None, False)
    assert asked.variables == {"A": "1", "C": None, "D": None}
    for listing in (list, len, dict):
        with pytest.raises(TypeError):
            listing(variables)
