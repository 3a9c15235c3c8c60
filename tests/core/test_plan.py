"""The difference between two configurations."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.plan import ChangeKind, compare
from blackhole_cg.core.spec import ResourceLimits, StopPolicy, TcpAddress
from blackhole_cg.core.words import Isolation
from tests.support.builders import service, supervisor_spec


def test_what_is_the_same_is_left_alone():
    spec = supervisor_spec(service("db"), service("web", "db"))
    plan = compare(spec, spec)
    assert (plan.changes, plan.unchanged) == ((), ("db", "web"))
    assert (plan.runtime, plan.deferred) == ((), ())


def test_each_kind_of_change_is_named_with_its_keys():
    web, db = service("web", config_hash="1"), service("db", config_hash="1")
    old = supervisor_spec(service("gone"), web, db)
    new = supervisor_spec(
        replace(
            web,
            argv=("/bin/true",),
            limits=ResourceLimits(memory_max_bytes=1, rlimits={"nofile": 1}),
            environment={"A": "1"},
            config_hash="2",
        ),
        replace(db, stop=StopPolicy(timeout_seconds=1)),
        service("fresh"),
    )
    plan = compare(old, new)
    assert [(change.service, change.kind, change.keys) for change in plan.changes] == [
        ("gone", ChangeKind.REMOVED, ()),
        (
            "web",
            ChangeKind.RESTART,
            ("command", "environment.A", "resources.memory_max", "resources.nofile"),
        ),
        ("db", ChangeKind.LIVE, ("stop",)),
        ("fresh", ChangeKind.ADDED, ()),
    ]


def test_what_only_a_new_supervisor_can_do_is_told_apart():
    old = supervisor_spec(max_processes=5)
    new = supervisor_spec(max_processes=6, isolation=Isolation.BEST_EFFORT, control_group="ops")
    new = replace(new, runtime=replace(new.runtime, metrics_listen=TcpAddress("127.0.0.1", 9464)))
    plan = compare(old, new)
    assert plan.runtime == ("max_processes",)
    assert plan.deferred == ("isolation", "control.group", "metrics.listen")


names = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2), max_size=8)


@given(names, names)
def test_every_service_is_in_exactly_one_place(old: dict[str, int], new: dict[str, int]):
    def spec(versions: dict[str, int]):
        return supervisor_spec(
            *(service(name, umask=version, config_hash=str(version)) for name, version in versions.items())
        )

    plan = compare(spec(old), spec(new))
    named = [change.service for change in plan.changes]
    assert sorted([*named, *plan.unchanged]) == sorted({**old, **new})
    assert plan.names(ChangeKind.ADDED) == [name for name in new if name not in old]
    assert plan.names(ChangeKind.REMOVED) == [name for name in old if name not in new]
    assert plan.names(ChangeKind.RESTART) == [name for name in new if name in old and old[name] != new[name]]
