"""A reload on a fake host: what is touched, what is not, and wishes that come in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from blackhole_cg.core.facts import LimitProblem
from blackhole_cg.core.plan import ChangeKind
from blackhole_cg.core.spec import LogPolicy, ResourceLimits, RestartPolicy
from blackhole_cg.core.words import AUTO, Isolation, State
from blackhole_cg.errors import ConfigError, Diagnostic, IsolationError, OperationError, UnknownServiceError
from blackhole_cg.supervisor.paths import Paths
from blackhole_cg.supervisor.supervisor import Supervisor
from tests.support.builders import service, supervisor_spec
from tests.support.fake_host import Behaviour, FakeHost
from tests.support.virtual_loop import run_virtual


def supervisor(directory, *specs, host=None, **options):
    paths = Paths(directory / "run", directory / "state", directory / "log")
    return Supervisor(supervisor_spec(*specs), paths=paths, host=host or FakeHost(), **options)


def changed(spec, **fields):
    return replace(spec, config_hash=spec.config_hash + "x", **fields)


def test_only_what_differs_is_touched(tmp_path):
    async def main():
        host = FakeHost()
        web, db = service("web", "db"), service("db")
        async with supervisor(tmp_path, db, web, service("gone"), service("same"), host=host) as it:
            await it.start()
            before = dict(host.live)
            plan = await it.reload(
                supervisor_spec(db, changed(web, umask=7), service("same"), service("fresh", "web"))
            )
            kinds = (ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.RESTART)
            assert [plan.names(kind) for kind in kinds] == [["fresh"], ["gone"], ["web"]]
            assert plan.unchanged == ("db", "same")
            assert host.live["db"] is before["db"]
            assert host.live["same"] is before["same"]
            assert host.live["web"] is not before["web"]
            assert host.live["web"].spec.umask == 7
            assert [info.name for info in it.all_services()] == ["db", "web", "same", "fresh"]
            assert all(info.state == "running" for info in it.all_services())
            with pytest.raises(UnknownServiceError):
                it.status("gone")
            told = [(event.service, event.detail) for event in it.events.read() if event.kind == "config"]
            assert told == [
                ("web", "changed by a reload: needs a new run (umask)"),
                ("fresh", "added by a reload"),
            ]
        assert not host.live

    asyncio.run(main())


def test_a_policy_holds_at_once_and_without_a_new_run(tmp_path):
    async def main():
        host = FakeHost()
        web = service("web")
        async with supervisor(tmp_path, web, host=host) as it:
            await it.start()
            policy = LogPolicy(max_bytes=4096, max_files=2)
            await it.reload(supervisor_spec(replace(web, restart=RestartPolicy(max_restarts=0), logs=policy)))
            assert len(host.runs) == 1
            assert it.outputs.pumps["web"].log_file.policy == policy
            host.run_of("web").end()
            await it.services.runners["web"].settle(lambda status: status.state is State.FAILED or None)

    asyncio.run(main())


def test_what_is_down_by_a_wish_stays_down_and_starts_by_the_new_configuration(tmp_path):
    async def main():
        host = FakeHost()
        web = service("web")
        async with supervisor(tmp_path, web, host=host) as it:
            await it.start()
            await it.stop("web")
            await it.reload(supervisor_spec(changed(web, umask=3)))
            assert it.status("web") is State.STOPPED
            await it.start("web")
            assert host.live["web"].spec.umask == 3

    asyncio.run(main())


def test_what_failed_is_tried_again_when_it_was_changed(tmp_path):
    async def main():
        host = FakeHost(web=Behaviour(launch_error="no such file"))
        web = service("web", required=False)
        async with supervisor(tmp_path, web, host=host) as it:
            with pytest.raises(OperationError):
                await it.start()
            assert it.status("web") is State.FAILED
            host.behaviours["web"] = Behaviour()
            await it.reload(supervisor_spec(changed(web, umask=3)))
            assert it.status("web") is State.RUNNING

    asyncio.run(main())


def test_enabled_and_disabled(tmp_path):
    async def main():
        one, two = service("one"), service("two", enabled=False)
        async with supervisor(tmp_path, one, two) as it:
            await it.start()
            await it.reload(supervisor_spec(replace(one, enabled=False), replace(two, enabled=True)))
            assert (it.status("one"), it.status("two")) == (State.STOPPED, State.RUNNING)

    asyncio.run(main())


def test_a_removed_service_that_comes_back_counts_its_runs_on(tmp_path):
    async def main():
        async with supervisor(tmp_path, service("web")) as it:
            await it.start()
            await it.restart("web")
            await it.reload(supervisor_spec())
            assert it.all_services() == []
            await it.reload(supervisor_spec(service("web")))
            assert it.service_info("web").run_id == 3

    asyncio.run(main())


def test_a_configuration_that_cannot_be_enforced_is_refused_as_a_whole(tmp_path):
    async def main():
        host = FakeHost()
        host.limit_problems = {"fresh": [LimitProblem("fresh", "memory_max", 1, "no")]}
        async with supervisor(tmp_path, service("web"), host=host) as it:
            await it.start()
            with pytest.raises(IsolationError):
                await it.reload(supervisor_spec(service("fresh"), isolation=Isolation.REQUIRED))
            assert [info.name for info in it.all_services()] == ["web"]
            assert it.is_running("web")

    asyncio.run(main())


def test_a_wrong_file_changes_nothing_and_the_next_reload_works(tmp_path):
    async def main():
        answers = [ConfigError([Diagnostic("f", 1, 1, "k", "wrong")]), supervisor_spec(service("fresh"))]

        async def source():
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async with supervisor(tmp_path, service("web"), source=source) as it:
            await it.start()
            with pytest.raises(ConfigError):
                await it.reload()
            assert it.is_running("web")
            await it.reload()
            assert [info.name for info in it.all_services()] == ["fresh"]

    asyncio.run(main())


def test_a_start_under_way_of_a_service_that_is_removed_says_so(tmp_path):
    async def main():
        host = FakeHost(slow=Behaviour(exec_seconds=60))
        async with supervisor(tmp_path, service("web"), service("slow"), host=host) as it:
            start = asyncio.create_task(it.start())
            await asyncio.sleep(1)
            host.behaviours["slow"] = Behaviour()
            reload = asyncio.create_task(it.reload(supervisor_spec(service("web"))))
            with pytest.raises(OperationError, match="cannot start 'slow'"):
                await asyncio.wait_for(start, 90)
            await reload
            assert [info.name for info in it.all_services()] == ["web"]

    run_virtual(main())


def test_a_new_service_that_does_not_start_leaves_the_rest_as_the_file_says(tmp_path):
    async def main():
        host = FakeHost(fresh=Behaviour(launch_error="no such file"))
        web = service("web")
        async with supervisor(tmp_path, web, service("gone"), host=host) as it:
            await it.start()
            with pytest.raises(OperationError, match="cannot start 'fresh'"):
                await it.reload(supervisor_spec(changed(web, umask=1), service("fresh")))
            assert it.is_running("web")
            assert host.live["web"].spec.umask == 1
            assert it.status("fresh") is State.FAILED

    asyncio.run(main())


def test_a_shutdown_overtakes_a_reload(tmp_path):
    async def main():
        host = FakeHost(gone=Behaviour(stop_seconds=5))
        gone = service("gone", tcp_port=80)
        async with supervisor(tmp_path, service("web"), gone, host=host) as it:
            await it.start()
            fresh = service("fresh", tcp_port=80)  # waits for the port
            reload = asyncio.create_task(it.reload(supervisor_spec(service("web"), fresh)))
            await asyncio.sleep(1)
            shutdown = asyncio.create_task(it.shutdown())
            with pytest.raises(OperationError, match="shutting down"):
                await reload
            await shutdown
            assert not host.live
            assert "fresh" not in [name for _, name in host.history]

    run_virtual(main())


def test_without_a_file_there_is_nothing_to_reload(tmp_path):
    async def main():
        async with supervisor(tmp_path, service("web")) as it:
            with pytest.raises(OperationError, match="did not come from a file"):
                await it.reload()

    asyncio.run(main())


def test_limits_change_without_a_new_run_and_a_refusal_is_told_and_tried_again(tmp_path):
    async def main():
        host = FakeHost(web=Behaviour(limit_problem="cannot change memory_max of 'web': in use"))
        web = service("web")
        smaller = replace(web, limits=ResourceLimits(memory_max_bytes=4096))
        async with supervisor(tmp_path, web, host=host) as it:
            await it.start()
            with pytest.raises(OperationError, match="in use"):
                await it.reload(supervisor_spec(smaller))
            assert host.run_of("web").changed_limits == []
            plan = await it.reload(supervisor_spec(smaller), force=True)
            assert plan.changes == ()
            assert host.run_of("web").changed_limits == [smaller.limits]
            assert len(host.runs) == 1

    asyncio.run(main())


def test_a_reconciliation_does_not_wait_and_can_be_waited_for(tmp_path):
    async def main():
        host = FakeHost(gone=Behaviour(stop_seconds=5))
        async with supervisor(tmp_path, service("web"), service("gone"), host=host) as it:
            await it.start()
            applied = it.reconcile(supervisor_spec(service("web"), service("fresh")))
            assert it.status("gone") is State.RUNNING
            await asyncio.sleep(1)
            assert (it.status("gone"), it.status("fresh")) == (State.STOPPING, State.RUNNING)
            with pytest.raises(OperationError, match="'gone' is being removed"):
                await it.start("gone")
            await applied.settled()
            assert [info.name for info in it.all_services()] == ["web", "fresh"]

    run_virtual(main())


def test_what_was_applied_is_kept_for_its_owner_alone_and_can_be_returned_to(tmp_path):
    async def main():
        host = FakeHost()
        web = service("web", environment={"TOKEN": "secret"})
        async with supervisor(tmp_path, web, host=host) as it:
            await it.start()
            for umask in range(1, 15):
                await it.reload(supervisor_spec(replace(web, umask=umask, config_hash=str(umask))))
            kept = it.configuration.applied()
            assert [entry.number for entry in kept] == list(range(6, 16))
            directory = tmp_path / "state" / "configurations"
            assert len(list(directory.iterdir())) == 10
            assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
            await it.configuration.roll_back(None)
            assert host.run_of("web").spec.umask == 13
            await it.configuration.roll_back(8)
            assert host.run_of("web").spec == replace(web, umask=7, config_hash="7")
            assert [entry.how for entry in it.configuration.applied()][-2:] == [
                "rollback to 14",
                "rollback to 8",
            ]
            with pytest.raises(OperationError, match="3: it is not kept"):
                await it.configuration.roll_back(3)

    asyncio.run(main())


def test_a_configuration_that_cannot_be_kept_is_applied_all_the_same(tmp_path, caplog):
    async def main():
        async with supervisor(tmp_path, service("web")) as it:
            directory = tmp_path / "state" / "configurations"
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()
            directory.write_text("no directory")
            await it.reload(supervisor_spec(service("fresh")))
            assert it.is_running("fresh")
            assert "cannot store the configuration" in caplog.text

    asyncio.run(main())


def test_services_on_any_port_do_not_wait_for_each_other(tmp_path):
    async def main():
        web, api = (replace(service(name), tcp_port=AUTO) for name in ("web", "api"))
        async with supervisor(tmp_path, web) as it, asyncio.timeout(30):
            await it.start()
            await it.reload(supervisor_spec(web, api))
            assert it.is_running("web") and it.is_running("api")

    asyncio.run(main())
