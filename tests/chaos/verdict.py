"""Whether what is left after a chaos run is what it should be."""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.faults import ENDLESS
from tests.chaos.world import FRAGILE_RESTARTS, World

SLACK_SECONDS = 1.0
PRINTING = (*ENDLESS, "fragile", "once", "wished")


def judge_states(world: World, states: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Every service is in the state that its policy prescribes after what was done to it."""
    wanted: dict[str, set[str]] = {name: {"running"} for name in ENDLESS}
    wanted |= {"job": {"completed"}, "off": {"stopped"}}
    wanted["once"] = {"failed", "completed"} if world.kills.get("once") else {"running"}
    wanted["fragile"] = {"failed"} if world.kills.get("fragile", 0) > FRAGILE_RESTARTS else {"running"}
    wanted["held"] |= {"failed"} if world.may_have_failed else set()
    wanted["wished"] = {{"up": "running", "down": "stopped"}[word] for word in world.wished}
    wanted["wished"] |= {"failed"} if world.may_not_have_started and _had_none(states["wished"]) else set()
    # A restart that found no descriptors is one of those that it has.
    wanted["fragile"] |= {"failed"} if world.kills.get("fragile") and _had_none(states["fragile"]) else set()
    for name, words in wanted.items():
        info = states[name]
        if info["state"] not in words:
            yield f"{name} is {info['state']}, not {' or '.join(sorted(words))}: {info['last_error']}"
        if name in ENDLESS and info["desired"] != "up":
            yield f"{name} is wanted {info['desired']}"
    # A service that has not begun yet has no limits to show.
    memory = states["writer"]["limits"].get("memory_max", {}).get("requested")
    if memory not in world.memory:
        yield f"writer's memory limit is {memory}, acknowledged was {world.memory}"
    if states["web"]["health"] != "healthy":
        yield f"web is {states['web']['health']}"
    if states["wished"]["desired"] not in world.wished:
        yield f"wished is wanted {states['wished']['desired']}, acknowledged was {world.wished}"


def _had_none(info: Mapping[str, Any]) -> bool:
    """Whether the last thing that went wrong with a service is that there were no descriptors."""
    return os.strerror(errno.EMFILE) in (info["last_error"] or "")


def judge_runs(world: World, mains: Mapping[str, list[Any]]) -> Iterator[str]:
    """No service was started more often than faults ended it."""
    for service, found in mains.items():
        most = 1 + world.ends.get(service, 0)
        if len(found) > most:
            yield f"{service} had {len(found)} main processes, {most - 1} of them were ended: {found}"


def judge_logs(world: World) -> Iterator[str]:
    """Each run's lines are there from 0 on, in order, each once, but for those that nothing could keep.

    There was no room for them, or they were in the spool when somebody deleted it and nobody else had them.
    """
    for service in PRINTING:
        numbers: dict[int, list[int]] = defaultdict(list)
        before = 0.0
        for record in _records(world.log_dir, service):
            found, number = numbers[record["run_id"]], int(record["message"])
            at = datetime.fromisoformat(record["time"]).timestamp()
            expected = found[-1] + 1 if found else 0
            if number > expected and not _may_be_lost(world, *sorted((before, at))):
                missing = f"lines {expected} to {number - 1} are missing"
                yield f"{service} run {record['run_id']}: {missing}, before {record['time']}"
            found.append(number)
            before = at
        for run_id, found in numbers.items():
            if found != sorted(set(found)):
                doubled = [number for number, count in Counter(found).items() if count > 1]
                yield f"{service} run {run_id}: lines repeated or out of order: {doubled[:10]}"


def _may_be_lost(world: World, begin: float, end: float) -> bool:
    """Whether nothing could keep a line at some moment between two others; wall time."""
    return any(
        begin - SLACK_SECONDS <= until and since <= end + SLACK_SECONDS
        for since, until in (*world.full_disks, *world.lost_spools)
    )


def _records(directory: Path, service: str) -> Iterator[dict[str, Any]]:
    for path in _log_files(directory, service):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["stream"] == "stdout":
                yield record


def bursts(times: Sequence[float]) -> list[tuple[float, float]]:
    """Moments with no more than a second between them, as spans."""
    found: list[tuple[float, float]] = []
    for at in times:
        if found and at - found[-1][1] < 1:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return found


def judge_refusals(world: World, refused_at: Sequence[float]) -> Iterator[str]:
    """A held socket refuses nobody, but where nothing was left to hold it.

    That is so while the service is down and no supervisor has answered since the last one was killed.
    """
    for begin, end in bursts(refused_at):
        killed = max((at for at in world.down_at.get("supervisor", []) if at <= begin), default=0.0)
        answered = max((at for at in world.answered if at <= begin), default=0.0)
        service_ends = [at for at in world.down_at.get("held", []) if at <= begin]
        if answered > killed or not service_ends:
            yield f"{begin:.1f}-{end:.1f}s: the held socket refused connections"


def _log_files(directory: Path, service: str) -> list[Path]:
    """Oldest first."""
    rotated = re.compile(rf"{service}\.log\.(\d+)")
    found = [(int(match[1]), path) for path in directory.iterdir() if (match := rotated.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)] + [directory / f"{service}.log"]


def judge_events(world: World) -> Iterator[str]:
    """Every state follows from the one before, each run begins once, and nothing is stored twice."""
    connection = sqlite3.connect(f"file:{world.state_dir / 'state.db'}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT id, service, run_id, kind, from_state, to_state FROM events ORDER BY id"
    ).fetchall()
    connection.close()
    last: dict[str, str] = {}
    begun: Counter[tuple[str, int]] = Counter()
    for number, service, run_id, kind, before, after in rows:
        if kind != "state":
            continue
        taken_over = before == "stopped" and after == "running"  # by a supervisor that knew no state yet
        # What had begun and ended while nobody watched is taken for one that ran.
        ended_unseen = before == "running" and last.get(service) == "starting"
        if before != last.get(service, "stopped") and not taken_over and not ended_unseen:
            yield f"event {number}: {service} goes {before} -> {after}, it was {last.get(service)}"
        last[service] = after
        if after == "starting":
            begun[service, run_id] += 1
    for (service, run_id), times in begun.items():
        if times > 1:
            yield f"{service} run {run_id} began {times} times"
