"""What is made of what was found on a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blackhole_cg.core.doctor import CAPABILITIES, Directory, Survey, Verdict, examine, examine_limits
from blackhole_cg.core.facts import HostFacts, LimitProblem

CONTROLLERS = ("cpu", "cpuset", "memory", "io", "pids")
FACTS = HostFacts(
    boot_id="b",
    kernel="6.1.0",
    page_size_bytes=4096,
    cgroup_mount="/sys/fs/cgroup",
    cgroup_root="/sys/fs/cgroup/ours",
    cgroup_problem=None,
    controllers=dict.fromkeys(CONTROLLERS),
)
GOOD = Survey(
    facts=FACTS,
    uid=0,
    io_weights={"vda": "bfq"},
    open_files=65536,
    pipe_bytes=1 << 20,
    directories=(Directory("state", "/var/lib/x", free_bytes=1 << 40),),
    supervisor="one answers",
)


def verdicts(found):
    return {each.topic: each.verdict for each in examine(found)}


def only(found, verdict):
    """The one finding of this kind."""
    (finding,) = [each for each in examine(found) if each.verdict is verdict]
    return finding


def test_a_good_host_has_nothing_to_mend():
    assert set(verdicts(GOOD).values()) == {Verdict.OK}
    assert not any(each.advice for each in examine(GOOD))


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("bound to cgroup v1 on this host", "unified_cgroup_hierarchy"),
        ("disabled on the kernel command line", "cgroup_disable="),
        ("not delegated to /x", "Delegate=yes"),
        ("something new", None),
    ],
)
def test_a_controller_that_is_missing_is_a_problem_with_a_way_out(reason, advice):
    found = replace(GOOD, facts=replace(FACTS, controllers={**FACTS.controllers, "memory": reason}))
    finding = only(found, Verdict.PROBLEM)
    assert finding.topic == "memory"
    assert reason in finding.text and "restarting what exceeds it" in finding.text
    assert finding.advice is None if advice is None else advice in finding.advice


def test_no_place_for_cgroups_says_what_to_do_about_it():
    unmounted = replace(FACTS, cgroup_root=None, cgroup_mount=None, cgroup_problem="cgroup v2 is not mounted")
    assert "mount -t cgroup2" in only(replace(GOOD, facts=unmounted), Verdict.PROBLEM).advice
    foreign = replace(FACTS, cgroup_root=None, cgroup_problem="is not delegated to it")
    assert "--cgroup-root" in only(replace(GOOD, facts=foreign), Verdict.PROBLEM).advice


@pytest.mark.parametrize(
    ("change", "topic"),
    [
        ({"facts": replace(FACTS, cgroup_kill=False)}, "kernel"),
        ({"facts": replace(FACTS, controllers={**FACTS.controllers, "cpuset": "no"})}, "cpuset"),
        ({"pressure": "switched off"}, "pressure"),
        ({"io_weights": {"vda": "bfq", "vdb": None}}, "io_weight"),
        ({"uid": 1000}, "user"),
        ({"open_files": 1024}, "open files"),
        ({"pipe_bytes": 65536}, "output"),
        ({"directories": (Directory("state", "/s", free_bytes=1000),)}, "state"),
    ],
)
def test_what_is_worse_than_it_could_be_is_a_note(change, topic):
    assert only(replace(GOOD, **change), Verdict.NOTE).topic == topic


def test_every_capability_that_root_has_not_is_named_with_its_use():
    found = examine(replace(GOOD, missing_capabilities=tuple(CAPABILITIES)))
    texts = [each.text for each in found if each.topic == "user"]
    assert len(texts) == len(CAPABILITIES)
    assert "root without CAP_KILL: cannot end services of other users" in texts


def test_a_directory_that_cannot_be_written_to_is_a_problem():
    found = replace(GOOD, directories=(Directory("logs", "/l", problem="mounted read-only"),))
    assert only(found, Verdict.PROBLEM).text == "/l: mounted read-only"


def test_weights_say_nothing_where_there_is_no_controller():
    facts = replace(FACTS, controllers={**FACTS.controllers, "io": "no"})
    assert "io_weight" not in verdicts(replace(GOOD, facts=facts, io_weights={"vda": None}))


def test_limits_that_cannot_be_enforced_are_told_once_for_all_who_ask_for_them():
    problems = [LimitProblem(name, "memory_max", 1, "no controller") for name in ("a", "b")]
    (note,) = examine_limits(problems, required=False)
    assert (note.verdict, note.text) == (Verdict.NOTE, "memory_max of a, b: no controller")
    (problem,) = examine_limits(problems, required=True)
    assert problem.verdict is Verdict.PROBLEM and "best_effort" in problem.advice
    assert examine_limits([], required=True) == []
