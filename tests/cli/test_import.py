"""`import`: files in, blackhole.yaml out, and `check` takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

FILES = {
    "supervisord": (
        "[supervisord]\nnodaemon=true\n\n[program:web]\ncommand=/bin/sleep 1000\ndirectory=/tmp\n"
        "environment=TOKEN=\"%(ENV_HOME)s,$x\",PRICE='5${y}'\nautorestart=true\n"
        "stdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\n"
    ),
    "procfile": "web: sleep $PORT\nclock: while true; do date; sleep 60; done\n",
    "compose": (
        "services:\n  db:\n    image: postgres\n    healthcheck: {test: pg_isready}\n"
        "  web:\n    command: sleep 1000\n    depends_on: [db]\n    mem_limit: 64m\n    restart: always\n"
    ),
    "systemd": (
        "[Unit]\nAfter=network.target\n[Service]\nExecStart=/bin/sleep 1000\n"
        "Restart=on-failure\nRestartSec=5s\n"
        "MemoryMax=64M\nLimitNOFILE=1024:4096\nPrivateTmp=true\n[Install]\nWantedBy=multi-user.target\n"
    ),
}


@pytest.mark.parametrize("kind", sorted(FILES))
def test_what_is_imported_is_a_valid_configuration(cli: Cli, tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / "web.service", tmp_path / "blackhole.yaml"
    source.write_text(FILES[kind])
    done = cli("import", kind, str(source), "--output", str(target))
    assert done.returncode == 0, done.stderr
    assert f"{source}:" in done.stdout.decode()
    assert "not carried over exactly" in done.stdout.decode().splitlines()[-1]
    checked = cli("check", "--config", str(target))
    assert checked.returncode == 0, (checked.stderr, target.read_text())
    assert target.stat().st_mode & 0o777 == 0o600
    comments = [line for line in target.read_text().splitlines() if line.startswith(f"# - {source}")]
    assert len(comments) == len(done.stdout.decode().splitlines()) - 1


def test_texts_arrive_as_they_were_meant(cli: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "s.conf", tmp_path / "blackhole.yaml"
    source.write_text(FILES["supervisord"])
    assert cli("import", "supervisord", str(source), "-o", str(target)).returncode == 0
    shown = json.loads(cli("config", "show", "--json", "--config", str(target)).stdout)
    assert shown["services"]["web"]["environment"] == {"TOKEN": "${HOME},$x", "PRICE": "5$${y}"}


def test_a_file_is_not_written_over(cli: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "Procfile", tmp_path / "blackhole.yaml"
    source.write_text(FILES["procfile"])
    target.write_text("mine")
    refused = cli("import", "procfile", str(source), "-o", str(target))
    assert refused.returncode == 2
    assert b"--force" in refused.stderr
    assert target.read_text() == "mine"
    assert cli("import", "procfile", str(source), "-o", str(target), "--force").returncode == 0
    assert "services:" in target.read_text()


def test_on_stdout_there_is_only_the_configuration(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "Procfile"
    source.write_text(FILES["procfile"])
    done = cli("import", "procfile", str(source), "-o", "-")
    assert done.stdout.decode().startswith("# Imported from ")
    assert b"clock: needs a shell" in done.stderr


def test_json_lists_services_and_notes(cli: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "Procfile", tmp_path / "blackhole.yaml"
    source.write_text(FILES["procfile"])
    facts = json.loads(cli("import", "procfile", str(source), "-o", str(target), "--json").stdout)
    assert facts["services"] == ["web", "clock"]
    assert [(note["line"], note["setting"]) for note in facts["notes"]] == [(2, "clock")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"\xff", "is not UTF-8"), (b"x", "is not NAME: COMMAND")],
)
def test_a_file_that_cannot_be_read(cli: Cli, tmp_path: Path, content: bytes | None, message: str) -> None:
    source, target = tmp_path / "Procfile", tmp_path / "blackhole.yaml"
    if content is not None:
        source.write_bytes(content)
    done = cli("import", "procfile", str(source), "-o", str(target))
    assert done.returncode == 78
    assert message in done.stderr.decode()
    assert not target.exists()
