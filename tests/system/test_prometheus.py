"""Debian's Prometheus with a real supervisor: it scrapes, answers queries, and takes the documented rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.test_metrics import free_address
from tests.support.configs import SLEEP, config, python, shell
from tests.support.live import Live
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.any_kernel, pytest.mark.timeout(600)]

DOCUMENT = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
DOCUMENTED_ADDRESS = "127.0.0.1:9464"
HUNGRY = "hoard = []\nwhile True: hoard.append(b'x' * 2**20)"
BUSY = "while :; do :; done"
QUICK = {"monitor": {"interval": "1s"}}


def documented(beginning: str) -> str:
    """The YAML in the documentation that begins like this."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    return next(block for block in blocks if block.startswith(beginning))


def run(*command: str, text: str = "") -> str:
    """What a program prints; it has to succeed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


class Prometheus:
    """A Prometheus that scrapes one supervisor by the documented configuration."""

    def __init__(self, directory: Path, target: str) -> None:
        self.address = str(free_address())
        self.config = directory / "prometheus.yml"
        rules = directory / "rules.yml"
        rules.write_text(documented("groups:"))
        scrape = documented("scrape_configs:").replace(DOCUMENTED_ADDRESS, target).replace("15s", "2s")
        self.config.write_text(f"global: {{evaluation_interval: 2s}}\nrule_files: [{rules}]\n{scrape}")
        self.output = directory / "prometheus.log"
        storage = directory / "storage"
        command = ["prometheus", f"--config.file={self.config}", f"--storage.tsdb.path={storage}"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, f"--web.listen-address={self.address}"], stdout=output, stderr=subprocess.STDOUT
            )

    def query(self, expression: str) -> dict[str, float]:
        """Service, or "", -> value."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{query}", timeout=60) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        return {each["metric"].get("service", ""): float(each["value"][1]) for each in found}

    def until(self, expression: str) -> dict[str, float]:
        """Wait until there is an answer that is not empty."""

        def ask() -> dict[str, float] | None:
            assert self.process.poll() is None, self.output.read_text()
            try:
                return self.query(expression) or None
            except OSError:
                return None  # it is not up yet

        return eventually(ask, f"{expression} has an answer", 180)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def live(supervise) -> Iterator[tuple[Live, str]]:
    """Services that sleep, are throttled and run out of memory; and where their metrics are."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    address = str(free_address())
    limits = {"memory_max": "64M", "memory_high": "max", "memory_swap_max": 0}
    services = {
        "calm": {**SLEEP, **QUICK, "resources": {"memory_max": "64M"}},
        "busy": shell(BUSY, **QUICK, resources={"cpu_percent": 20}),
        "hungry": python(HUNGRY, **QUICK, resources=limits, restart={"policy": "never"}, required=False),
    }
    yield supervise(config(services, metrics={"listen": address})), address


def test_prometheus_scrapes_and_its_tools_find_nothing_to_complain_about(live, tmp_path):
    live, address = live
    live.until("hungry", "failed", 120)
    prometheus = Prometheus(tmp_path, address)
    try:
        assert prometheus.until('up{job="blackhole"} == 1')
        assert prometheus.until('blackhole_processes{state="running"} == 2')
        assert prometheus.query('blackhole_process_state{state="failed"} == 1') == {"hungry": 1}
        assert prometheus.query("blackhole_process_oom_kills_total") == {"calm": 0, "busy": 0, "hungry": 1}
        assert prometheus.query('blackhole_process_exits_total{reason="oom"}') == {"hungry": 1}
        limit = 'blackhole_process_limit_effective{limit="memory_max"}'
        assert prometheus.query(limit)["calm"] == 64 * 2**20
        share = prometheus.until(f"blackhole_process_memory_bytes / ignoring(limit) {limit} > 0")
        assert 0 < share["calm"] < 0.5 and "hungry" not in share
        throttled = prometheus.until("increase(blackhole_process_cpu_throttled_seconds_total[1m]) > 0")
        assert throttled.keys() == {"busy"}
        assert prometheus.until('blackhole_process_pressure_ratio{resource="cpu"} > 0')["busy"] <= 1
        assert prometheus.until('ALERTS{alertname="BlackholeServiceFailed"}') == {"hungry": 1}
        assert "SUCCESS" in run("promtool", "check", "config", str(prometheus.config))
    finally:
        prometheus.close()
    assert run("promtool", "check", "metrics", text=live.cli("metrics").stdout) == ""
