"""What systemd is told of an upgrade."""

from __future__ import annotations

from typing import Any

import pytest

from blackhole_cg.cli.under_systemd import UPGRADE_SECONDS, Reports
from blackhole_cg.kernel.service_manager import ServiceManager


class Listener(ServiceManager):
    """Hears what it would be told."""

    def __init__(self, watchdog_seconds: float | None) -> None:
        super().__init__("/nowhere", watchdog_seconds, None)
        self.heard: dict[str, Any] = {}

    def tell(self, **facts: str | int) -> None:
        self.heard.update(facts)


@pytest.mark.parametrize(("usual", "patient"), [(30.0, UPGRADE_SECONDS), (1000.0, 1000.0)])
def test_the_watchdog_is_patient_until_the_next_program_is_at_work(usual: float, patient: float) -> None:
    manager = Listener(usual)
    reports = Reports(manager, lambda: ["running"])
    reports.upgrading()
    assert (manager.heard["RELOADING"], manager.heard["WATCHDOG_USEC"]) == (1, int(patient * 1e6))
    assert manager.heard["MONOTONIC_USEC"] > 0
    assert "READY" not in manager.heard
    reports.upgraded()
    assert (manager.heard["READY"], manager.heard["WATCHDOG_USEC"]) == (1, int(usual * 1e6))


def test_without_a_watchdog_none_is_set() -> None:
    manager = Listener(None)
    reports = Reports(manager, lambda: [])
    reports.upgrading()
    reports.upgraded()
    assert "WATCHDOG_USEC" not in manager.heard
