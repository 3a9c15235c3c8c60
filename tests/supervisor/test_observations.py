"""What services use as the API gives it: wall times, the past, and following."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from blackhole_cg.core.history import SPAN_SECONDS, History
from blackhole_cg.core.samples import Sample
from blackhole_cg.observe.monitor.process_samples import ProcessSample
from blackhole_cg.runner.clock import Clock
from blackhole_cg.supervisor.observations import Observations
from blackhole_cg.supervisor.watching import Watching
from tests.support.builders import service
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual

NOW = 1000.0
WALL = datetime(2030, 1, 31, 12, tzinfo=UTC)
CLOCK = Clock(lambda: NOW, lambda: WALL, lambda: 0.0)


def observations(**monitor: Any) -> Observations:
    return Observations(cast(Watching, SimpleNamespace(monitor=SimpleNamespace(**monitor))), CLOCK)


def test_a_sample_has_a_wall_time_and_keeps_what_is_unknown():
    sample = Sample(NOW - 90, 7, 3.25, cpu_percent=12.34567, memory_current_bytes=4096)
    found = observations(latest={"web": sample}.get).latest("web")
    assert found is not None
    assert "taken_at" not in found
    assert (found["at_wall"], found["run_id"], found["uptime_seconds"]) == (
        "2030-01-31T11:58:30.000000Z",
        7,
        3.25,
    )
    assert (found["cpu_percent"], found["memory_current_bytes"], found["pids"]) == (12.346, 4096, None)
    assert observations(latest={}.get).latest("web") is None


def test_the_past_has_points_and_spans_from_a_time_on():
    history = History()
    for at in range(0, int(NOW), 5):
        history.append(Sample(float(at), 1, 1.0, cpu_percent=float(at % 2)))
    it = observations(history=lambda name: history)
    everything = it.history("web", None)
    assert len(everything["points"]) == NOW / 5
    assert len(everything["spans"]) == NOW // SPAN_SECONDS
    assert everything["spans"][0]["cpu_percent"] == {"least": 0.0, "mean": 0.5, "greatest": 1.0}
    assert everything["spans"][0]["memory_bytes"] is None
    newer = it.history("web", WALL - timedelta(seconds=10))
    assert newer == {
        "points": [
            {
                "at_wall": at_wall,
                "cpu_percent": cpu,
                "memory_bytes": None,
                "io_read_bytes_per_second": None,
                "io_write_bytes_per_second": None,
            }
            for at_wall, cpu in (("2030-01-31T11:59:50.000000Z", 0.0), ("2030-01-31T11:59:55.000000Z", 1.0))
        ],
        "spans": [],
    }


def test_processes_have_a_field_for_each_fact():
    (process,) = observations(processes=lambda name: [ProcessSample(7, "/opt/web", 1.5)]).processes("web")
    assert (process["pid"], process["command"], process["cpu_percent"]) == (7, "/opt/web", 1.5)
    assert process["memory_rss_bytes"] is None


def test_following_everything_takes_in_what_begins_to_run_later():
    async def main():
        stage = Stage(service("db"), service("web"))
        watching = Watching(stage.host, asyncio.get_running_loop().time, lambda *_: None)
        samples: dict[str, Sample] = {}
        watching.monitor.latest = samples.get  # type: ignore[method-assign]
        seen: list[tuple[str, float]] = []

        async def follow() -> None:
            async for name, sample in watching.follow():
                seen.append((name, sample.taken_at))

        async def take(name: str, at: float) -> None:
            samples[name] = Sample(at, 1, 1.0)
            watching._on_sample(name, samples[name])
            await asyncio.sleep(0.01)

        follower = asyncio.create_task(follow())
        for name in ("db", "web"):
            await stage.operations.start([name])
            watching.note(stage.services.runners[name])
            await take(name, 1.0)
        await take("db", 2.0)
        watching.close()
        await follower
        assert seen == [("db", 1.0), ("web", 1.0), ("db", 2.0)]

    run_virtual(main())
