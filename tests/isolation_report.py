"""Measures every limit in the test VM, breaks each, and writes docs/isolation.md: `make report`.

`python -m tests.isolation_report [--from DIRECTORY]`; with `--from`, only writes it again from kept results.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.proofs import PROOFS

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs/isolation.md"
KERNELS = ("6.1", "6.12")
RUN = (sys.executable, "-m", "tests.vm", "run", "--scratch", "256:200", "--timeout", "2400")
EVIDENCE, BROKEN = "evidence.jsonl", "broken.jsonl"

Record = Mapping[str, str]

INTRODUCTION = """\
# Isolation, measured

Written by `make report`, which runs `tests/system/limits` in the test VM and then breaks each limit on
purpose. Every limit is set in a `blackhole.yaml` under `isolation: required`, read back from the kernel,
and its effect is measured from outside: by the counters of the cgroup, or by what the service could no
longer do. The VM is emulated (QEMU, 2 CPUs), so times are 15 to 25 times those of real hardware; shares
and bounds are not affected by that.
"""

BREAKING = """\
## Each limit broken on purpose

Two ways to break it: the write does nothing; and, besides, reading it back tells the supervisor what it
wanted to hear. rlimits are set by the child itself and never read back before it runs.
"""

NOTES = """\
## What to know

- **io.weight needs somebody who heeds it.** With scheduler `none` or `mq-deadline` and without io.cost a
  weight does nothing. Then the status says `enforced: false` and names the disk; `isolation: required`
  starts all the same, because that is the host's set-up and not a refused limit. `io_max` works on any
  disk.
- **BFQ's weights end at 1000**, so an `io_weight` above that counts as 1000 there, and the status says
  so.
- **memory.low is weighed against the neighbours below the same cgroup root.** Against the rest of the
  host the kernel grants no more than the directories above have themselves, and the supervisor does not
  set theirs: where that matters, set `MemoryLow=` on `blackhole-cg-services.service` and on the slices
  above it.
- **RLIMIT_NPROC counts every process of the user**, and root is exempt; `pids.max` counts the service's
  own and holds for everybody. `processes` sets both.
- **The defaults are limits too**: `resource_limits` gives a service without a word on it 10 % of a core
  and 512 MiB.
"""


def measure(kernel: str, directory: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Run a command in the VM; what it leaves comes into the directory, what it prints into a log there."""
    directory.mkdir(parents=True, exist_ok=True)
    places = (
        "--env",
        f"BLACKHOLE_CG_EVIDENCE=/out/{EVIDENCE}",
        "--env",
        f"BLACKHOLE_CG_BROKEN=/out/{BROKEN}",
    )
    with (directory / "console.log").open("wb") as log:
        return subprocess.Popen(
            [*RUN, "--kernel", kernel, *places, "--out", str(directory), "--", "python", "-m", *command],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def collect(directory: Path) -> bool:
    """Measure on each kernel at the same time, then break the limits on the first; whether all went well."""
    tests = ("pytest", "-q", "tests/system/limits")
    runs = {kernel: measure(kernel, directory / kernel, tests) for kernel in KERNELS}
    codes = {f"kernel {kernel}": run.wait() for kernel, run in runs.items()}
    breaking = directory / "broken"
    codes["broken limits"] = measure(KERNELS[0], breaking, ("tests.break_limits",)).wait()
    for what, code in codes.items():
        print(f"==> {what}: {'as it should be' if code == 0 else f'ended with {code}'}")
    return not any(codes.values())


def read_records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def render(evidence: Mapping[str, Sequence[Record]], broken: Sequence[Record]) -> str:
    """The whole report."""
    kernels = [f"{name}: {records[0]['kernel']}" for name, records in evidence.items()]
    lines = [INTRODUCTION, f"Kernels: {'; '.join(kernels)}.", "", "## What each limit does", ""]
    lines += _table(("limit", "asked for", "the kernel holds", "by", *(f"effect on {k}" for k in evidence)))
    for limit in PROOFS:
        lines += _limit_rows(limit, evidence)
    lines += ["", BREAKING]
    lines += _table(("limit", "write does nothing", "and nobody reads it back", "noticed by"))
    by_how = {(each["limit"], each["how"]): each for each in broken}
    for limit, (_, test) in PROOFS.items():
        cells = [_noticed(by_how.get((limit, how))) for how in ("ignored", "unnoticed")]
        lines.append(_row((f"`{limit}`", *cells, f"`{test}`")))
    return "\n".join([*lines, "", NOTES])


def _limit_rows(limit: str, evidence: Mapping[str, Sequence[Record]]) -> list[str]:
    """One line for each mechanism that was tried, side by side for the kernels."""
    columns = {
        kernel: [each for each in records if each["limit"] == limit] for kernel, records in evidence.items()
    }
    rows = []
    for first in next(iter(columns.values())):
        effects = [
            "; ".join(each["effect"] for each in records if each["mechanism"] == first["mechanism"])
            for records in columns.values()
        ]
        asked = (f"`{limit}`", f"`{first['requested']}`", f"`{first['held']}`", first["mechanism"])
        rows.append(_row((*asked, *effects)))
    return rows


def _noticed(record: Record | None) -> str:
    if record is None:
        return "-"
    told = record["told"].replace("|", "\\|")
    return f"{record['outcome']}: {told}"


def _table(names: Sequence[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    """Measure, or take kept results, and write the report."""
    with tempfile.TemporaryDirectory(prefix="blackhole-cg-report-") as name:
        directory = Path(arguments[1] if arguments[:1] == ["--from"] else name)
        if not arguments and not collect(directory):
            for log in directory.glob("*/console.log"):
                print(f"--- {log.parent.name}\n{log.read_text(errors='replace')[-4000:]}")
            return 1
        evidence = {kernel: read_records(directory / kernel / EVIDENCE) for kernel in KERNELS}
        REPORT.write_text(render(evidence, read_records(directory / "broken" / BROKEN)))
    print(f"==> {REPORT.relative_to(ROOT)} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
