"""The Python API on the real machine, from a configuration file."""

from __future__ import annotations

import asyncio
import os
import signal

import yaml

from blackhole_cg import Supervisor
from blackhole_cg.errors import ConfigError
from blackhole_cg.kernel.host import HostOptions, LinuxHost
from blackhole_cg.supervisor.paths import Paths
from tests.support.configs import SLEEP, config
from tests.support.live import alive, require_cgroup


def test_a_supervisor_as_a_context_manager(tmp_path):
    root = require_cgroup() / f"bh-test-api-{os.getpid()}"
    file = tmp_path / "blackhole.yaml"
    fast = {**SLEEP, "restart": {"initial_delay": "50ms"}}
    file.write_text(yaml.safe_dump(config({"db": SLEEP, "web": {**fast, "depends_on": ["db"]}})))
    paths = Paths(tmp_path / "run", tmp_path / "state", tmp_path / "log")

    async def main() -> list[int]:
        host = LinuxHost(HostOptions(paths.runtime_dir, Supervisor(file).spec.runtime.isolation, str(root)))
        async with Supervisor(file, paths=paths, host=host) as supervisor:
            await supervisor.start()
            assert supervisor.is_running("web")
            info = supervisor.service_info("web")
            assert info.cgroup is not None and info.cgroup.endswith("/web")
            os.kill(info.pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                async for event in supervisor.events.follow(after_id=0, service="web"):
                    if event.run_id == 2 and event.to_state == "running":
                        break
            assert supervisor.service_info("web").restarts == 1
            await supervisor.restart("db")
            return [each.pid for each in supervisor.all_services() if each.pid]

    pids = asyncio.run(main())
    assert len(pids) == 2
    assert not any(map(alive, pids))
    assert not root.exists()


def test_a_wrong_file_is_a_config_error(tmp_path):
    try:
        Supervisor(tmp_path / "missing.yaml")
    except ConfigError as error:
        assert "No such file" in str(error)
    else:
        raise AssertionError("no error")
