"""A start after a crash: an unchanged configuration is not read again, and a changed one always is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from blackhole_cg.kernel.config_cache import NAME
from tests.support.configs import SLEEP, config
from tests.support.live import Live, alive, crash
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def imports_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python says on stderr what it imports; what validates is imported only to read a configuration."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")


def has_read(live: Live) -> bool:
    """Whether the supervisor, or a process that it began, has read the configuration."""
    text = live.text()
    assert "blackhole_cg.supervisor.supervisor" in text, "imports are told"
    return "pydantic" in text


def cache_of(live: Live) -> Path:
    return live.runtime_dir / NAME


def started(live: Live) -> Live:
    """Start it, and wait until the next start can know what it has read."""
    live.start().ready()
    eventually(cache_of(live).exists, "the reading is kept")
    return live


def rewrite(live: Live, services: dict[str, dict[str, object]]) -> None:
    live.config.write_text(yaml.safe_dump(config(services)))


def test_an_unchanged_configuration_is_not_read_again_and_a_changed_one_is(supervise):
    services = {"web": SLEEP, "db": SLEEP}
    live = started(supervise(config(services), start=False))
    assert has_read(live)
    before = live.services()
    assert cache_of(live).stat().st_mode & 0o777 == 0o600

    for _ in range(2):
        crash(live)
        live.start().ready()
        assert not has_read(live)
        after = live.services()
        assert {name: info["pid"] for name, info in after.items()} == {
            name: info["pid"] for name, info in before.items()
        }
        assert all(info["adopted"] and not info["outdated"] for info in after.values())

    crash(live)
    written = cache_of(live).stat().st_ino
    changed = {**SLEEP, "environment": {"A": "1"}}
    rewrite(live, {"web": changed, "db": SLEEP, "new": SLEEP})
    live.start().ready()
    assert has_read(live)
    after = live.services()
    assert {name: info["outdated"] for name, info in after.items()} == {
        "web": True, "db": False, "new": False,
    }  # fmt: skip
    assert (after["web"]["pid"], after["new"]["state"]) == (before["web"]["pid"], "running")
    eventually(lambda: cache_of(live).stat().st_ino != written, "the new reading is kept")

    crash(live)
    rewrite(live, {"web": {**SLEEP, "comand": "x"}})
    live.start()
    assert live.process is not None
    assert live.process.wait(60) == 78
    assert "comand" in live.text()
    assert alive(before["web"]["pid"])

    rewrite(live, {"web": changed, "db": SLEEP, "new": SLEEP})
    live.start().ready()
    assert not has_read(live), "it is again what it was"
    assert live.interrupt() == 0
    assert live.leftovers() == []


def test_what_a_reload_has_read_is_known_to_the_next_start(supervise):
    live = started(supervise(config({"web": SLEEP}), start=False))
    written = cache_of(live).stat().st_ino
    rewrite(live, {"web": SLEEP, "db": SLEEP})
    live.cli("reload")
    eventually(lambda: cache_of(live).stat().st_ino != written, "the new reading is kept")

    other = live.directory / "other.yaml"
    other.write_text(yaml.safe_dump(config({"web": SLEEP, "db": SLEEP, "applied": SLEEP})))
    live.cli("apply", "--config", str(other))
    assert set(live.services()) == {"web", "db", "applied"}
    crash(live)
    live.start().ready()
    assert not has_read(live)
    assert set(live.services()) == {"web", "db"}, "the file that it is started with holds"
    assert live.interrupt(signal.SIGTERM) == 0


def test_variables_and_the_loss_of_the_runtime_directory_are_seen(supervise, monkeypatch):
    monkeypatch.setenv("SHOWN", "before")
    service = {**SLEEP, "environment": {"SHOWN": "${SHOWN}"}}
    live = started(supervise(config({"web": service}), start=False))
    crash(live)
    monkeypatch.setenv("SHOWN", "after")
    live.start().ready()
    assert has_read(live)
    assert live.status("web")["outdated"]

    crash(live)
    cache_of(live).unlink()
    live.start().ready()
    assert has_read(live)
    assert live.status("web")["adopted"]
    assert live.interrupt() == 0
