"""Launch one service in this process, then print how it failed and what it left behind, as JSON.

Run as a program by the tests, under setpriv, with a privilege taken away that one preexec step needs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from blackhole_cg.core.spec import ResourceLimits, SecuritySpec
from blackhole_cg.core.words import Isolation
from tests.kernel.machine import Traces, open_machine


async def main(base: Path, wishes: dict[str, object]) -> dict[str, object]:
    limits = ResourceLimits(rlimits=wishes.pop("rlimits", {}))  # type: ignore[arg-type]
    no_new_privileges = bool(wishes.pop("no_new_privileges", False))
    security = SecuritySpec(no_new_privileges, wishes.pop("capabilities", None))  # type: ignore[arg-type]
    with open_machine(base, Isolation(str(wishes.pop("isolation", "required")))) as machine:
        spec = machine.spec("sleep", "1000", name="web", limits=limits, security=security, **wishes)
        before = Traces.take(machine.root)
        try:
            run = machine.host.launch(spec, 1)
            await run.executed()
        except Exception as error:
            after = Traces.take(machine.root)
            return {
                "error": str(error),
                "left": before != after,
                "problems": list(map(str, machine.host.problems(spec))),
            }
        limits_seen = {name: dataclasses.asdict(state) for name, state in run.limits.items()}
        await machine.end(run)
        return {"error": None, "limits": limits_seen, "problems": list(map(str, machine.host.problems(spec)))}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))))
