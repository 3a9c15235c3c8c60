"""The tool around the VM, without a VM: what it reads of the host, packs, unpacks and never endangers."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.vm import image, job, settings
from tests.vm.machine import MARK, _Console
from tests.vm.problems import VmError

ROOT = Path(__file__).parents[2]


def pip_conf(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path / "none"), **variables}


def test_local_packages_can_be_read_from_the_build_and_not_changed(tmp_path: Path) -> None:
    page = tmp_path / "mirror/simple/demo/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("../../files/demo.whl")
    (tmp_path / "mirror/files").mkdir()
    (tmp_path / "mirror/files/demo.whl").write_text("wheel")
    environment = pip_conf(tmp_path, PIP_EXTRA_INDEX_URL=f"file://{tmp_path}/mirror/simple")
    with settings.pip_settings("/inside", environment) as pip:
        (url,) = (word for word in pip.text.split() if word.endswith("/simple/"))
        for name in ("demo/", "../files/demo.whl"):
            assert urllib.request.urlopen(urljoin(url, name)).read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(urljoin(url, "demo/"), method="DELETE"))
    assert page.exists()
    assert str(tmp_path) not in pip.text


def test_nothing_of_the_host_is_mounted_into_the_tree_that_is_deleted() -> None:
    """A failed build deletes the tree; a bind mount of the host's below it would be deleted with it."""
    script = (ROOT / "tests/vm/guest/build.sh").read_text()
    mounts = [line.strip() for line in script.splitlines() if line.strip().startswith("mount ")]
    assert mounts == ['mount --bind "$root" "$bare"']


def test_files_and_plain_addresses_in_pip_settings(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("certificate")
    config = tmp_path / "home/.config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = https://index.invalid/simple\ntimeout = 7\nno-color = true\n")
    variables = pip_conf(tmp_path, PIP_CERT=str(tmp_path / "cert.pem"), PIP_DEFAULT_TIMEOUT="9")
    with settings.pip_settings("/inside", variables) as pip:
        assert "index-url = https://index.invalid/simple\n" in pip.text
        assert "cert = /inside/file-0\n" in pip.text
        assert "timeout = 9\n" in pip.text
        assert "no-color" not in pip.text
        assert pip.copies == {"/inside/file-0": tmp_path / "cert.pem"}


def test_the_key_depends_on_suite_and_kernel() -> None:
    keys = {image.Recipe(suite, kernel).key() for suite, all_ in image.KERNELS.items() for kernel in all_}
    assert len(keys) == sum(map(len, image.KERNELS.values()))
    assert image.Recipe("bookworm").key() == image.Recipe("bookworm", "6.1").key()
    with pytest.raises(VmError, match=r"trixie has no kernel 6\.1"):
        image.Recipe("trixie", "6.1")


def test_every_requirement_of_the_image_is_pinned() -> None:
    pins = image.requirements().split()
    assert all("==" in pin for pin in pins)
    assert any(pin.startswith("pytest==") for pin in pins)
    assert not any(pin.startswith(("mypy==", "ruff==")) for pin in pins)


def test_a_job_holds_the_project_and_its_command(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "a file").write_text("text")
    (project / "ignored").write_text("no")
    (project / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    wanted = job.Job(("printf", "%s", "it's"), 5, {"NAME": "a b"}, install=False)
    job.pack(wanted, project, tmp_path / "job.tar")
    assert (tmp_path / "job.tar").stat().st_size % job.SECTOR == 0
    with tarfile.open(tmp_path / "job.tar") as tar:
        assert {"work/a file", "work/.gitignore", "job/run"} == set(tar.getnames())
        assert tar.getmember("work/a file").uid == 0
        script = tar.extractfile("job/run")
        assert script is not None
        lines = script.read().decode().splitlines()
    assert "export NAME='a b'" in lines
    assert lines[-1].endswith("""timeout --kill-after=10 5 printf %s 'it'"'"'s'""")


def test_results_cannot_land_outside_their_directory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "out.raw", "w") as tar:
        for name in ("./rc", "../escaped", f"{tmp_path}/absolute", "sub/file"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"0\n"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    job.unpack(tmp_path / "out.raw", tmp_path / "results")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"out.raw", "results/rc", "results/sub/file"}


def test_the_console_shows_only_what_the_command_printed() -> None:
    shown = io.StringIO()
    console = _Console(shown)
    for chunk in (b"boot", b"ing\r\n" + MARK + b"one\r\n", b"two", MARK + b"Powering off.\r\n"):
        console.feed(chunk)
    assert shown.getvalue() == "one\ntwo"
    assert console.before == b"booting\r\n"


def test_without_a_command_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.vm", "run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "say what to run, after --\n")
