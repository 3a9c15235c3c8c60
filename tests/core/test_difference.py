"""The difference in full: values, secrets, dependents."""

from __future__ import annotations

from dataclasses import replace

from blackhole_cg.core.difference import describe
from blackhole_cg.core.plan import compare
from blackhole_cg.core.spec import ResourceLimits, RestartPolicy
from tests.support.builders import service, supervisor_spec


def described(old, new):
    return describe(old, new, compare(old, new))["changes"]


def test_each_value_that_differs_is_told_down_to_the_single_key():
    web = service("web", config_hash="1", limits=ResourceLimits(memory_max_bytes=1, rlimits={"nofile": 10}))
    after = replace(
        web,
        argv=("/bin/other",),
        limits=ResourceLimits(memory_max_bytes=2, rlimits={"nofile": 20}),
        restart=RestartPolicy(max_restarts=1),
        config_hash="2",
    )
    (change,) = described(supervisor_spec(web), supervisor_spec(after))
    assert change["change"] == "restart"
    assert [(each["key"], each["old"], each["new"]) for each in change["fields"]] == [
        ("command", ["/bin/sleep", "infinity"], ["/bin/other"]),
        ("resources.memory_max", 1, 2),
        ("resources.nofile", 10, 20),
        ("restart.max_restarts", 5, 1),
    ]


def test_what_may_be_secret_is_not_told():
    web = service("web", environment={"A": "secret1"}, handed_config="secret2", argv=("x", "secret3"))
    after = replace(
        web,
        environment={"B": "secret4"},
        handed_config=None,
        argv=("secret5",),
        hidden=("argv",),
        config_hash="2",
    )
    (change,) = described(supervisor_spec(web), supervisor_spec(after))
    assert "secret" not in str(change)
    assert {each["key"] for each in change["fields"]} == {
        "command",
        "config",
        "environment.A",
        "environment.B",
    }


def test_those_who_need_what_is_restarted_are_named_unless_they_are_themselves():
    db, api, web = service("db"), service("api", "db"), service("web", "api")
    new = supervisor_spec(
        replace(db, umask=1, config_hash="2"),
        replace(api, umask=1, config_hash="2"),
        web,
        service("new", "db"),
    )
    changes = {each["service"]: each for each in described(supervisor_spec(db, api, web), new)}
    assert changes["db"]["dependents"] == ["web", "new"]
    assert changes["api"]["dependents"] == ["web"]
    assert changes["new"]["dependents"] == []
