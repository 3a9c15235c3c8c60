"""What is in vagrant/, as far as it can be tested without a machine; `make vagrant` goes the whole way."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.vagrant import box, session
from tests.vm.image import BOX, Image, Recipe

DIRECTORY = Path(__file__).parents[2] / "vagrant"
ODD = ["-k", "it's", "a b", "", "$HOME", '"']


def program(directory: Path, name: str, script: str) -> str:
    """Make a program; the PATH by which it is found first."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def validate(
    directory: Path, home: Path, provider: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `vagrant validate`, with a home of its own."""
    if shutil.which("vagrant") is None:
        pytest.skip("vagrant is not installed")
    environment = {
        **os.environ,
        "VAGRANT_HOME": str(home),
        "VAGRANT_DOTFILE_PATH": str(home / "dot"),
        "VAGRANT_DEFAULT_PROVIDER": provider,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        **variables,
    }
    done = subprocess.run(
        ["vagrant", "validate"], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if f"'{provider}' could not be found" in done.stderr:
        pytest.skip(f"vagrant has no plugin for {provider} here")
    return done


@pytest.mark.parametrize("emulate", ["0", "1"])
@pytest.mark.parametrize("directory", [DIRECTORY, BOX], ids=["Vagrantfile", "box/Vagrantfile"])
def test_vagrantfile_is_valid_for_libvirt(directory: Path, emulate: str, tmp_path: Path) -> None:
    done = validate(directory, tmp_path, "libvirt", EMULATE=emulate)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Vagrantfile validated successfully.\n"


def test_vagrantfile_is_valid_for_virtualbox(tmp_path: Path) -> None:
    """VirtualBox itself need not be here: Vagrant only asks for its version."""
    path = program(tmp_path / "bin", "VBoxManage", "echo 7.0.8r156879")
    done = validate(DIRECTORY, tmp_path / "home", "virtualbox", PATH=path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_vagrantfile_would_be_noticed(tmp_path: Path) -> None:
    text = (DIRECTORY / "Vagrantfile").read_text()
    (tmp_path / "Vagrantfile").write_text(text.replace("libvirt.memory", "libvirt.memry"))
    (tmp_path / "provision").touch()
    done = validate(tmp_path, tmp_path / "home", "libvirt")
    assert done.returncode == 1
    assert "memry" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["tests/system"], ODD], ids=["none", "one", "odd"])
def test_arguments_reach_the_tests_unchanged(arguments: list[str], tmp_path: Path) -> None:
    path = program(tmp_path, "vagrant", 'for last; do :; done; [ "$1" = rsync ] || printf %s "$last"')
    done = subprocess.run(
        [DIRECTORY / "run-tests", *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shlex.split(done.stdout) == ["sudo", "/blackhole-cg/vagrant/test-inside", *arguments]


def test_a_box_has_an_image_of_its_own() -> None:
    ordinary, of_box = Recipe(), Recipe(box=True)
    assert ordinary.key() != of_box.key()
    assert set(ordinary.files()) < set(of_box.files())
    assert not any(BOX in path.parents for path in ordinary.files())
    assert "openssh-server" in set(of_box.packages()) - set(ordinary.packages())


def test_box_has_what_vagrant_looks_for(tmp_path: Path) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    image = Image(tmp_path)
    for path in (image.root, image.kernel, image.initrd):
        path.write_bytes(b"\0" * 512)
    box.pack(image, tmp_path / "local.box")
    with tarfile.open(tmp_path / "local.box") as tar:
        assert {"metadata.json", "Vagrantfile", "box.img", "vmlinuz", "initrd"} == set(tar.getnames())
        image_file = tar.extractfile("box.img")
        assert image_file is not None
        assert image_file.read(3) == b"QFI"  # the mark of a qcow2 file
    assert not (tmp_path / "local.img").exists()


def test_vagrant_never_runs_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert session.ordinary_user().pw_name == "nobody"
    somebody = next(each for each in pwd.getpwall() if each.pw_uid != 0)
    monkeypatch.setenv("SUDO_UID", str(somebody.pw_uid))
    assert session.ordinary_user().pw_uid == somebody.pw_uid
    monkeypatch.setattr(os, "geteuid", lambda: somebody.pw_uid)
    assert session.ordinary_user().pw_uid == somebody.pw_uid


def test_a_session_leaves_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    with session.new_session() as made:
        home = made.home
        # libvirt makes sockets this deep below it, and a socket's path has at most 107 characters.
        config = made.options()["env"]["XDG_CONFIG_HOME"]
        assert config.startswith(str(home))
        assert len(f"{config}/libvirt/qemu/channel/target/domain-1-bh_default/org.qemu.guest_agent.0") <= 107
    assert not home.exists()
