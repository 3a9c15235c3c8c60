"""Schedule and questions together, over a real socket in real time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from blackhole_cg.core.probe_spec import HttpTarget, ProbeSpec, ProbesSpec
from blackhole_cg.core.probing import Died
from blackhole_cg.core.words import Health
from blackhole_cg.observe.probes.ask import Asker
from blackhole_cg.observe.probes.schedule import Outcome, Prober
from tests.observe.probes.servers import in_time, serve
from tests.support.builders import service
from tests.support.fake_commands import FakeCommands


class RealClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def jitter(self) -> float:
        return -1.0


def test_a_service_starts_works_and_breaks() -> None:
    async def scenario() -> None:
        status = 503
        told: asyncio.Queue[Health | Died] = asyncio.Queue()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n".encode())

        async with serve(answer) as address:
            probe = ProbeSpec(HttpTarget(address, "/healthz"), period_seconds=0.1, timeout_seconds=30.0)
            starting = ProbeSpec(
                probe.target, period_seconds=0.1, timeout_seconds=30.0, failure_threshold="max"
            )
            prober = Prober(
                "web",
                ProbesSpec(startup=starting, liveness=probe),
                Asker(service(), FakeCommands()),
                RealClock(),
                Outcome(lambda health, message: told.put_nowait(health), told.put_nowait),
            )
            prober.start()
            while prober.facts()[0].failures < 4:  # noqa: ASYNC110  (there is nothing to await)
                await asyncio.sleep(0.01)
            assert prober.health is Health.UNKNOWN
            status = 200
            assert await told.get() is Health.HEALTHY
            status = 500
            assert await told.get() is Health.UNHEALTHY
            died = await told.get()
            assert isinstance(died, Died)
            url = f"GET http://{address}/healthz"
            assert died.message == f"liveness probe failed 3 times in a row: {url}: 500 Told"
            assert [facts.ok for facts in prober.facts()] == [True, False]
            prober.close()

    in_time(scenario())
