"""What follows from rules on a fake host: weights that are changed, and changed back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from blackhole_cg.core.monitor_spec import Action, ActionKind, Bound, Metric, MonitorSpec, RuleSpec
from blackhole_cg.core.rules import Breach
from blackhole_cg.core.samples import Sample
from blackhole_cg.core.spec import ResourceLimits
from blackhole_cg.supervisor.watching import Watching
from tests.support.builders import service
from tests.support.stage import Stage
from tests.support.virtual_loop import run_virtual


def weight_rule(bound: float, cpu_weight: int) -> RuleSpec:
    action = Action(ActionKind.WEIGHT, cpu_weight=cpu_weight)
    return RuleSpec(f"above {bound:g}", Metric.MEMORY_PERCENT, Bound(bound), action=action)


LOW, HIGH = weight_rule(80, 50), weight_rule(90, 10)
SPEC = service(
    "web", limits=ResourceLimits(cpu_weight=400), monitor=MonitorSpec(rules=(LOW, HIGH))
)  # fmt: skip


class Scene:
    """One service that is watched, and what was told and done."""

    def __init__(self) -> None:
        self.stage = Stage(SPEC)
        self.told: list[str] = []
        self.watching = Watching(
            self.stage.host, asyncio.get_running_loop().time, lambda name, detail: self.told.append(detail)
        )

    async def start(self) -> None:
        await self.stage.operations.start(["web"])
        self.runner = self.stage.services.runners["web"]
        self.watching.note(self.runner)

    async def breach(self, rule: RuleSpec) -> None:
        self.watching._on_breach("web", Breach(rule, 1, 99.0, rule.bound.value, 0.0, 0.0))
        await asyncio.sleep(0.01)

    async def recover(self, rule: RuleSpec) -> None:
        self.watching._on_recovery("web", rule, Sample(1.0, 1, 1.0, memory_percent=42.0))
        await asyncio.sleep(0.01)

    @property
    def weights(self) -> list[int | None]:
        return [action.cpu_weight for action in self.stage.host.run_of("web").adjusted]


def test_weights_go_down_a_ladder_and_up_again():
    async def main() -> None:
        scene = Scene()
        await scene.start()
        await scene.breach(LOW)
        await scene.breach(HIGH)
        await scene.recover(HIGH)
        await scene.recover(LOW)
        await scene.recover(LOW)
        assert scene.weights == [50, 10, 50, 400]
        assert scene.told[-2:] == [
            "above 90: back within bounds (memory_percent 42); cpu_weight 50",
            "above 80: back within bounds (memory_percent 42); cpu_weight 400",
        ]
        scene.watching.close()

    run_virtual(main())


def test_other_rules_begin_with_the_configured_weights():
    async def main() -> None:
        scene = Scene()
        await scene.start()
        await scene.breach(HIGH)
        scene.watching.reconfigure([scene.runner])
        await asyncio.sleep(0.01)
        assert scene.weights == [10], "the rules are the same"
        scene.runner.reconfigure(replace(SPEC, monitor=MonitorSpec(rules=(LOW,))))
        scene.watching.reconfigure([scene.runner])
        await asyncio.sleep(0.01)
        assert scene.weights == [10, 400]
        scene.watching.close()

    run_virtual(main())


def test_a_recovery_of_a_run_that_is_over_touches_nothing():
    async def main() -> None:
        scene = Scene()
        await scene.start()
        await scene.breach(HIGH)
        scene.stage.host.run_of("web").end()
        await asyncio.sleep(0.01)
        scene.watching.note(scene.runner)
        await scene.recover(HIGH)
        assert len(scene.told) == 1
        scene.watching.close()

    run_virtual(main())
