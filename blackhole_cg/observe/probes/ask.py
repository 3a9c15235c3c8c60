"""Every kind of question, for one service."""

from __future__ import annotations

from dataclasses import dataclass

from blackhole_cg.core.probe_spec import Answer, ExecTarget, GrpcTarget, HttpTarget, Target, TcpTarget
from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.observe.probes import exec as exec_probe
from blackhole_cg.observe.probes import grpc, http, tcp
from blackhole_cg.observe.probes.exec import CommandRunner


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks what a probe asks. Commands run as `spec` says."""

    spec: ServiceSpec
    commands: CommandRunner

    async def __call__(self, target: Target, timeout_seconds: float) -> Answer:
        """The answer, within about the time limit; never raises but when it is cancelled."""
        match target:
            case HttpTarget():
                return await http.ask(target, timeout_seconds)
            case TcpTarget():
                return await tcp.ask(target, timeout_seconds)
            case GrpcTarget():
                return await grpc.ask(target, timeout_seconds)
            case ExecTarget():
                return await exec_probe.ask(target, timeout_seconds, self.spec, self.commands)
