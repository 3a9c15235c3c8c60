"""kill -9 of a real supervisor, again and again, whatever it is doing: its services do not notice."""

from __future__ import annotations

import os
import time

from tests.support.random_kills import NAMES, RandomKills, witnesses
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("BLACKHOLE_CG_TEST_KILL_SECONDS", "15"))
SEED = int(os.environ.get("BLACKHOLE_CG_TEST_SEED", time.time_ns() % 1_000_000))


def test_services_do_not_notice_that_supervisors_are_killed(supervise):
    live = supervise(witnesses())
    for name in NAMES:
        eventually(lambda name=name: (live.directory / name / "starts").exists(), f"{name} has begun")
    drama = RandomKills(live, SEED)
    print(f"BLACKHOLE_CG_TEST_SEED={SEED}")
    drama.run(SECONDS)
    drama.check_events()
    print(f"{drama.kills} kills, wishes {dict(drama.wishes)}")
    assert live.interrupt() == 0
    assert live.leftovers() == []
