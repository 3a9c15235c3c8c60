"""The metrics: their names and values, and that both formats can be read back by Prometheus' own parsers."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from prometheus_client import Metric, parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from blackhole_cg.core.facts import EventRecord, LimitState
from blackhole_cg.core.probe_spec import ProbeKind
from blackhole_cg.core.samples import Reading, Sample
from blackhole_cg.core.tally import ServiceTally
from blackhole_cg.observe.exposition import OPENMETRICS, TEXT, choose_content_type, render
from blackhole_cg.observe.metrics import Measured, collect, limit_number
from blackhole_cg.observe.probes.schedule import ProbeFacts
from tests.control.fake_operations import make_info

LIMITS = {
    "cpu_max": LimitState("150000 100000", "150000 100000", True),
    "memory_max": LimitState(2**30, None, False, "memory: bound to cgroup v1"),
    "pids_max": LimitState("max", "max", True),
    "memory_oom_group": LimitState(True, True, True),
    "cpuset_cpus": LimitState("0-1", "0-1", True),
}
USAGE = {"cpu_percent": 99.0, "memory_bytes": 70, "pids": 3, "cpu_seconds": 12.25}


def tally() -> ServiceTally:
    counts = ServiceTally(restarts=2)
    counts.note(EventRecord("", "web", 1, "state", "running", "restarting", "oom", ""))
    return counts


def measured(name: str = "web", **info: Any) -> Measured:
    """A service of which everything is known."""
    sample = Sample(
        taken_at=10.0,
        run_id=1,
        uptime_seconds=10.0,
        cpu_percent=12.5,
        memory_bytes=60.0,
        memory_current_bytes=64,
        memory_anon_bytes=50,
        threads=3,
        open_files=5,
        connections=1,
        pids=3,
        cpu_pressure_percent=1.0,
        memory_pressure_percent=2.0,
        memory_full_pressure_percent=3.0,
        io_pressure_percent=4.0,
        io_full_pressure_percent=5.0,
        oom_kills_total=6,
        memory_high_events_total=7,
        memory_max_events_total=8,
    )
    reading = Reading(
        taken_at=10.0,
        cpu_periods_total=100,
        cpu_throttled_periods_total=5,
        cpu_throttled_usec=1500,
        io_read_bytes_total=11.0,
        io_write_bytes_total=12.0,
    )
    probes = [
        ProbeFacts(ProbeKind.STARTUP, "tcp"),
        ProbeFacts(ProbeKind.LIVENESS, "http", False, 2, "", "500", 0.0123),
    ]
    known = make_info(name, **{"health": "unhealthy", "limits": LIMITS, "usage": USAGE} | info)
    return Measured(known, sample, reading, probes, tally())


def idle(name: str = "idle") -> Measured:
    """A service that has never run."""
    nothing = {"cpu_percent": None, "memory_bytes": None, "pids": None, "cpu_seconds": None}
    stopped = {"state": "stopped", "desired": "down", "pid": None, "uptime_seconds": None, "limits": {}}
    return Measured(make_info(name, usage=nothing, **stopped))


def text_of(*services: Measured, content_type: str = TEXT) -> str:
    return b"".join(render(collect(services), content_type)).decode()


def read_back(*services: Measured, content_type: str = TEXT) -> list[Metric]:
    read = parser if content_type == TEXT else openmetrics_parser
    return list(read.text_string_to_metric_families(text_of(*services, content_type=content_type)))


def values(*services: Measured) -> dict[str, dict[str, float]]:
    """Name -> labels but the service's, as text -> value, of the first service."""
    found: dict[str, dict[str, float]] = {}
    for family in read_back(*services):
        for sample in family.samples:
            labels = {name: text for name, text in sample.labels.items() if name != "service"}
            if sample.labels.get("service") in {None, services[0].info.name}:
                found.setdefault(sample.name, {})[",".join(labels.values())] = sample.value
    return found


def test_the_names_of_the_contract_and_their_values() -> None:
    found = values(measured(), measured("db", state="failed"), idle())
    states = found["blackhole_processes"]
    assert {state: count for state, count in states.items() if count} == {
        "running": 1,
        "failed": 1,
        "stopped": 1,
    }
    assert len(states) == 8
    assert found["blackhole_process_cpu_percent"] == {"": 12.5}
    assert found["blackhole_process_memory_bytes"] == {"": 60.0}
    assert found["blackhole_process_restarts_total"] == {"": 3.0}
    assert found["blackhole_process_uptime_seconds"] == {"": 90.0}


def test_what_else_is_known_of_a_service() -> None:
    found = {name.removeprefix("blackhole_process_"): each for name, each in values(measured()).items()}
    assert (found["state"]["running"], found["state"]["failed"]) == (1, 0)
    assert (found["healthy"], found["desired_up"]) == ({"": 0.0}, {"": 1.0})
    assert (found["oom_kills_total"], found["exits_total"]) == ({"": 1.0}, {"oom": 1.0})
    assert found["events_total"] == {"state,oom": 1.0}
    assert found["cpu_seconds_total"] == {"": 12.25}
    assert found["cpu_throttled_seconds_total"] == {"": 0.0015}
    assert found["memory_events_total"] == {"high": 7.0, "max": 8.0, "oom_kill": 6.0}
    assert (found["io_read_bytes_total"], found["io_write_bytes_total"]) == ({"": 11.0}, {"": 12.0})
    assert found["pressure_ratio"] == {
        **{"cpu,some": 0.01, "memory,some": 0.02, "memory,full": 0.03},
        **{"io,some": 0.04, "io,full": 0.05},
    }
    assert found["log_lines_total"] == {"": 7.0}


def test_limits_are_numbers_where_they_are_numbers() -> None:
    found = values(measured())
    assert found["blackhole_process_limit_requested"] == {
        **{"cpu_max": 1.5, "memory_max": 2.0**30, "pids_max": math.inf, "memory_oom_group": 1.0},
    }
    assert found["blackhole_process_limit_effective"] == {
        **{"cpu_max": 1.5, "pids_max": math.inf, "memory_oom_group": 1.0},
    }
    assert found["blackhole_process_limit_enforced"] == {
        **{"cpu_max": 1.0, "memory_max": 0.0, "pids_max": 1.0, "memory_oom_group": 1.0, "cpuset_cpus": 1.0},
    }


@pytest.mark.parametrize(
    ("limit", "value", "number"),
    [
        ("cpu_max", "max 100000", math.inf),
        ("cpu_max", "20000 100000", 0.2),
        ("memory_max", 4096, 4096.0),
        ("memory_max", None, None),
        ("io_max", "8:0 rbps=1 wbps=max riops=max wiops=max", None),
        ("nofile", "max", math.inf),
    ],
)
def test_the_number_of_a_limit(limit: str, value: int | str | None, number: float | None) -> None:
    assert limit_number(limit, value) == number


def test_a_probe_that_was_not_answered_yet_has_no_result() -> None:
    found = values(measured())
    assert found["blackhole_process_probe_success"] == {"liveness": 0.0}
    assert found["blackhole_process_probe_duration_seconds"] == {"liveness": 0.0123}
    assert found["blackhole_process_probe_consecutive_failures"] == {"liveness": 2.0}


def test_what_is_not_known_is_absent_and_what_is_counted_begins_at_zero() -> None:
    found = {name.removeprefix("blackhole_process_"): each for name, each in values(idle()).items()}
    own = {name for name in found if name.startswith(("blackhole", "process_"))}
    assert found.keys() - own == {
        *("state", "desired_up", "restarts_total", "oom_kills_total"),
        *("log_lines_total", "log_lines_dropped_total"),
    }
    assert found["restarts_total"] == {"": 0.0}


def test_an_unknown_health_is_neither_good_nor_bad() -> None:
    assert "blackhole_process_healthy" not in values(measured(health="unknown"))
    assert values(measured(health="healthy"))["blackhole_process_healthy"] == {"": 1.0}


def test_memory_is_asked_of_the_processes_only_where_no_controller_counts_it() -> None:
    whole = measured()
    assert whole.sample is not None
    uncounted = Measured(whole.info, Sample(10.0, 1, 10.0))
    assert values(uncounted)["blackhole_process_memory_bytes"] == {"": 70.0}
    assert "blackhole_process_memory_bytes" not in values(Measured(whole.info))  # no sample yet


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
def test_both_formats_say_the_same_and_follow_the_rules_for_names(content_type: str) -> None:
    families = read_back(measured(), idle(), content_type=content_type)
    samples = {
        (each.name, *sorted(each.labels.items())): each.value
        for family in families
        for each in family.samples
        if not each.name.startswith("process_")
    }
    assert len(samples) > 60
    same = {
        (each.name, *sorted(each.labels.items())): each.value
        for family in read_back(measured(), idle())
        for each in family.samples
        if not each.name.startswith("process_")
    }
    assert samples == same
    for family in families:
        assert family.documentation, family.name
        for each in family.samples:
            assert re.fullmatch("[a-z]+(_[a-z]+)*", each.name)
            assert each.name.endswith("_total") == (family.type == "counter")
            assert not each.name.endswith(("_usec", "_ms", "_kb", "_count", "_sum"))


def test_only_openmetrics_has_an_end_and_it_has_one() -> None:
    assert text_of(measured(), content_type=OPENMETRICS).count("# EOF\n") == 1
    assert text_of(measured(), content_type=OPENMETRICS).endswith("# EOF\n")
    assert "# EOF" not in text_of(measured())


def test_no_metric_is_announced_twice() -> None:
    announced = re.findall(r"^# TYPE (\S+)", text_of(measured(), idle(), measured("db")), re.MULTILINE)
    assert len(announced) == len(set(announced)) > 30


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text; version=1.0.0; charset=utf-8", OPENMETRICS),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=much", TEXT),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", TEXT),
        ("application/openmetrics-text;version=9.0.0", TEXT),
    ],
)
def test_the_format_is_the_one_that_is_preferred(accept: str, chosen: str) -> None:
    assert choose_content_type(accept) == chosen
