"""Puts a service's limits into force: writes each one, reads it back, compares, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from blackhole_cg.core.facts import HostFacts, LimitProblem, LimitState
from blackhole_cg.core.limits import (
    BFQ_LARGEST_WEIGHT,
    Limit,
    Value,
    bfq_weight,
    cgroup_limits,
    expected_value,
    held_value,
    parse_cpu_list,
    parse_weight,
)
from blackhole_cg.core.spec import ResourceLimits, ServiceSpec
from blackhole_cg.core.words import Isolation
from blackhole_cg.errors import CgroupError, ControllerMissingError, SpawnError
from blackhole_cg.kernel.block import BFQ, describe_mechanisms, resolve_device
from blackhole_cg.kernel.cgroup import Cgroup

BFQ_FILE = "io.bfq.weight"


@dataclass(frozen=True, slots=True)
class LimitWriter:
    """Knows the host and how strict to be. `io_weights` is the mechanism per disk."""

    facts: HostFacts
    isolation: Isolation
    io_weights: Mapping[str, str | None] = field(default_factory=dict)
    sys: Path = Path("/sys")

    def problems(self, spec: ServiceSpec) -> list[LimitProblem]:
        """Each limit that is promised and cannot be kept here, as far as can be told without trying."""
        limits, bad_devices = self.limits(spec)
        found = []
        if self.facts.cgroup_root is None:
            reason = self.facts.cgroup_problem or "there is no place for it"
            found.append(LimitProblem(spec.name, "no cgroup can be made", None, reason))
        for limit in limits:
            obstacle = self.obstacle(limit, bad_devices)
            if obstacle is not None and limit.promised:
                found.append(LimitProblem(spec.name, limit.name, limit.requested, obstacle))
        return found

    def apply(self, spec: ServiceSpec, cgroup: Cgroup | None) -> dict[str, LimitState]:
        """Write and verify every limit.

        Raises:
            SpawnError: with `isolation: required`, for the first promised limit that is not in force.
        """
        limits, bad_devices = self.limits(spec)
        states: dict[str, LimitState] = {}
        for limit in limits:
            reason = self.obstacle(limit, bad_devices)
            state = LimitState(limit.requested, reason=reason)
            if reason is None and cgroup is not None:
                state = self.enforce(limit, cgroup)
            if not state.enforced and limit.promised and self.isolation is Isolation.REQUIRED:
                raise SpawnError(
                    spec.name, f"set {limit.name} to {limit.requested}", detail=state.reason or ""
                )
            states[limit.name] = self.heeded(limit, state)
        return states

    def restore(
        self, spec: ServiceSpec, cgroup: Cgroup, known: Mapping[str, LimitState]
    ) -> dict[str, LimitState]:
        """Write the limits once more that `spec` and an earlier write agree on; what came of each of them."""
        limits, bad_devices = self.limits(spec)
        states = {}
        for limit in limits:
            agreed = limit.name in known and known[limit.name].requested == limit.requested
            if agreed and self.obstacle(limit, bad_devices) is None:
                states[limit.name] = self.heeded(limit, self.enforce(limit, cgroup))
        return states

    def limits(self, spec: ServiceSpec) -> tuple[tuple[Limit, ...], dict[str, str]]:
        """The limits, and what is wrong with the devices of io_max."""
        devices, problems = self._devices(spec.limits)
        try:
            return cgroup_limits(spec.limits, devices), problems
        except ValueError as cause:
            raise SpawnError(spec.name, "read its limits", detail=str(cause)) from cause

    def _devices(self, limits: ResourceLimits) -> tuple[dict[str, str], dict[str, str]]:
        devices, problems = {}, {}
        for bound in limits.io_max:
            devices[bound.device] = bound.device
            try:
                devices[bound.device] = resolve_device(bound.device, self.sys)
            except OSError as cause:
                problems[bound.device] = f"cannot find {bound.device}: {cause.strerror}"
            except ValueError as cause:
                problems[bound.device] = str(cause)
        return devices, problems

    def obstacle(self, limit: Limit, bad_devices: Mapping[str, str]) -> str | None:
        """Why the limit cannot even be tried."""
        if self.facts.cgroup_root is None:
            return self.facts.cgroup_problem or "no cgroup can be made"
        absent = self.facts.controllers.get(limit.controller, "unknown controller")
        if absent is not None:
            return f"{limit.controller}: {absent}"
        if limit.name == "io_max" and bad_devices:
            return "; ".join(bad_devices.values())
        return None

    def enforce(self, limit: Limit, cgroup: Cgroup) -> LimitState:
        """Write one, and say what the kernel holds then; a refusal is the reason in the answer."""
        try:
            if limit.name == "io_weight":
                return self._enforce_io_weight(limit, cgroup)
            state = self._write_and_verify(limit, cgroup)
            if limit.name == "cpuset_cpus" and limit.requested and state.enforced:
                return _narrowed(state, cgroup)
            return state
        except CgroupError as cause:
            return LimitState(limit.requested, reason=str(cause))

    def _write_and_verify(self, limit: Limit, cgroup: Cgroup) -> LimitState:
        for text in limit.writes:
            cgroup.write(limit.file, text)
        answer = cgroup.read(limit.file)
        try:
            held: Value = held_value(limit, answer)
        except (ValueError, IndexError):
            reason = f"cannot understand {limit.file}: {answer.strip()!r}"
            return LimitState(limit.requested, reason=reason)
        if held != expected_value(limit, self.facts.page_size_bytes):
            reason = f"wrote {' '.join(limit.writes)!r} to {limit.file}, but the kernel holds {held!r}"
            return LimitState(limit.requested, held, reason=reason)
        return LimitState(limit.requested, held, enforced=True)

    def heeded(self, limit: Limit, state: LimitState) -> LimitState:
        """The same; of io_weight, whether anything heeds it.

        A weight that the kernel holds moves nothing unless a disk's scheduler or io.cost heeds it. That is
        the host's set-up and not a refused limit, so it is told and never prevents a start.
        """
        if limit.name != "io_weight" or not state.enforced:
            return state
        reason = describe_mechanisms(self.io_weights)
        if BFQ in self.io_weights.values() and int(limit.requested) > BFQ_LARGEST_WEIGHT:
            reason += f"; the most that BFQ takes is {BFQ_LARGEST_WEIGHT}"
        return replace(state, enforced=any(self.io_weights.values()), reason=reason)

    def _enforce_io_weight(self, limit: Limit, cgroup: Cgroup) -> LimitState:
        """Into io.weight, and into BFQ's own file where there is one, whose scale ends earlier."""
        weight = int(limit.requested)
        state: LimitState | None = None
        if cgroup.has(limit.file) or not cgroup.has(BFQ_FILE):
            state = self._write_and_verify(limit, cgroup)
            if not state.enforced:
                return state
        if cgroup.has(BFQ_FILE):
            cgroup.write(BFQ_FILE, str(bfq_weight(weight)))
            held = parse_weight(cgroup.read(BFQ_FILE))
            if held != bfq_weight(weight):
                reason = f"wrote {bfq_weight(weight)} to {BFQ_FILE}, but the kernel holds {held}"
                return LimitState(weight, held, reason=reason)
            state = state or LimitState(weight, held, enforced=True)
        assert state is not None
        return state


def _narrowed(state: LimitState, cgroup: Cgroup) -> LimitState:
    """The CPUs that a service really gets: those of its list that its ancestors leave it.

    Source: kernel Documentation/admin-guide/cgroup-v2.rst, cpuset.cpus.effective.
    """
    try:
        effective = cgroup.read("cpuset.cpus.effective").strip()
    except ControllerMissingError:
        return state
    if parse_cpu_list(effective) <= parse_cpu_list(str(state.requested)):
        return LimitState(state.requested, effective, enforced=True)
    reason = f"its ancestors leave it none of these CPUs, so it runs on {effective}"
    return LimitState(state.requested, effective, reason=reason)
