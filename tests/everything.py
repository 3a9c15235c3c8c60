"""All tests: on this host what it can run, in the test VM what needs a real kernel and systemd, and one sum.

`python -m tests.everything [--host-only]`. A host that has all that itself runs everything, without a VM.
Where the VM cannot be had, its tests count as skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests import side_by_side
from tests.support import real_kernel
from tests.vagrant.needs import need_vagrant
from tests.vm.problems import Unavailable

ROOT = Path(__file__).parents[1]
# The name of the row -> how to have that VM, and the marker of what runs in it.
VMS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "VM, kernel 6.1": (("--kernel", "6.1"), "needs_kernel and not any_kernel"),
    "VM, kernel 6.12": (("--kernel", "6.12"), "every_kernel or any_kernel"),
}
IN_VM = ("tests/kernel", "tests/system")
SCRATCH = ("--scratch", "256:200")
VM_TIMEOUT_SECONDS = 5400  # only ends what hangs: they share the cores with each other or the host's tests
VM_UNAVAILABLE = 77


@dataclass(frozen=True)
class Counts:
    """What a run of pytest came to."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> how many
    note: str = ""

    def __add__(self, other: Counts) -> Counts:
        note = "; ".join(filter(None, (self.note, other.note)))
        skipped = self.skipped + other.skipped
        return Counts(self.passed + other.passed, self.failed + other.failed, skipped, note)


def read_report(path: Path) -> Counts:
    """The sums of a JUnit report, and why tests were skipped."""
    suites = list(ET.parse(path).getroot().iter("testsuite"))
    total, failed, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    reasons = Counter(each.get("message", "") for suite in suites for each in suite.iter("skipped"))
    return Counts(total - failed - skipped, failed, reasons)


def prepare() -> None:
    """Install what some tests can do without, where that is possible; without it they are skipped."""
    try:
        need_vagrant()
    except Unavailable as problem:
        print(f"==> vagrant/Vagrantfile will not be tested: {problem}", file=sys.stderr)


def judge(report: Path, code: int) -> Counts:
    """The report's sums; a run that failed without saying so in its report is one failure more."""
    if not report.exists():
        return Counts(failed=1, note=f"ended with {code} and left no report")
    counts = read_report(report)
    if code and not counts.failed:
        return Counts(counts.passed, 1, counts.skipped, f"ended with {code}")
    return counts


def on_this_host(directory: Path, everything: bool) -> Counts:
    """Run the tests here; without `everything`, all but those that need a real kernel.

    Those that need one use the machine up to its limits, and so have it to themselves.
    """
    cores = os.cpu_count() or 1
    counts = run_here(directory / "beside", runs_of_pytest(cores), "not needs_kernel")
    return counts + run_here(directory / "alone", 1, "needs_kernel") if everything else counts


def run_here(directory: Path, count: int, marker: str) -> Counts:
    """Run the tests with this marker in so many processes."""
    directory.mkdir()
    with side_by_side.running(directory, count, ("-m", marker)) as runs:
        return sum((judge(run.report, run.finish()) for run in runs), Counts())


@dataclass
class VmRun:
    """The tests of one VM, under way; what it prints is kept, so that two do not mix."""

    name: str
    report: Path
    process: subprocess.Popen[str]
    output: Path

    @classmethod
    def start(cls, name: str, directory: Path) -> VmRun:
        options, marker = VMS[name]
        report, output = directory / f"{name}.xml", directory / f"{name}.log"
        command = [sys.executable, "-m", "tests.vm", "run", *options, *SCRATCH]
        command += ["--timeout", str(VM_TIMEOUT_SECONDS), "--junit", str(report)]
        command += ["--", "python", "-m", "pytest", "-m", marker, *modules_with(marker)]
        with output.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, text=True)
        return cls(name, report, process, output)

    def finish(self) -> Counts:
        """Wait for it, and show what it printed."""
        code = self.process.wait()
        text = self.output.read_text(errors="replace")
        print(f"\n==> {self.name}\n{text}", end="")
        if code == VM_UNAVAILABLE:
            reason = text.strip().splitlines()[-1] if text.strip() else "no VM"
            return Counts(skipped=Counter({reason: len(list_tests(VMS[self.name][1]))}))
        return judge(self.report, code)


def modules_with(marker: str) -> list[str]:
    """Where the tests of a VM are. It takes the VM a minute to find that out among all modules."""
    return sorted({test.partition("::")[0] for test in list_tests(marker)}) or list(IN_VM)


def list_tests(marker: str) -> list[str]:
    """The tests that a VM runs."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", marker, *IN_VM]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [line for line in listed.splitlines() if "::" in line]


def runs_of_pytest(cores: int) -> int:
    """How many share out the host's tests: one more than cores, because they wait for half of their time."""
    return cores + 1


def beside_the_host(cores: int) -> int:
    """How many VMs run beside the host's tests, which use two cores themselves: slowness makes tests fail."""
    return max(0, cores // 2 - 1)


def vms_at_once(cores: int) -> int:
    """How many run beside each other after that: each has two cores, and limits are measured in it."""
    return max(1, cores // 2)


@contextlib.contextmanager
def vms_running(directory: Path, names: Iterable[str]) -> Iterator[list[VmRun]]:
    """The VMs, which do their work while the host does its own; ended with the block."""
    runs = [VmRun.start(name, directory) for name in names]
    try:
        yield runs
    finally:
        for run in runs:
            run.process.terminate()
            run.process.wait()


def render(results: Mapping[str, Counts]) -> str:
    """The table, the reasons of what was skipped, and the sum."""
    lines = [f"{'':<16}{'passed':>8}{'failed':>8}{'skipped':>9}"]
    for place, counts in results.items():
        row = f"{place:<16}{counts.passed:>8}{counts.failed:>8}{counts.skipped.total():>9}  {counts.note}"
        lines.append(row.rstrip())
    for place, counts in results.items():
        lines += [f"{number:>4} skipped ({place}): {why}" for why, number in counts.skipped.most_common()]
    passed = sum(counts.passed for counts in results.values())
    failed = sum(counts.failed for counts in results.values())
    skipped = sum(counts.skipped.total() for counts in results.values())
    return "\n".join([*lines, "", f"{passed} passed, {failed} failed, {skipped} skipped"])


def run_all(directory: Path, vms: list[str], everything: bool) -> dict[str, Counts]:
    """The host's tests and those of these VMs, as many beside each other as the cores bear."""
    cores = os.cpu_count() or 1
    beside, at_once = beside_the_host(cores), vms_at_once(cores)
    with contextlib.ExitStack() as stack:
        runs = stack.enter_context(vms_running(directory, vms[:beside]))
        results = {"this host": on_this_host(directory, everything)}
        for first in range(beside, len(vms), at_once):
            runs = [*runs, *stack.enter_context(vms_running(directory, vms[first : first + at_once]))]
            results |= {run.name: run.finish() for run in runs}
            runs = []
        results |= {run.name: run.finish() for run in runs}
    return results


def main() -> int:
    """Run all of it and print the table; 0 only when nothing failed."""
    prepare()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the VMs end with this process
    obstacle = real_kernel.obstacle()
    names = [] if obstacle is None or "--host-only" in sys.argv[1:] else list(VMS)
    if names:
        print(f"==> {obstacle}: what needs a real kernel runs in VMs, their output comes last", flush=True)
    with tempfile.TemporaryDirectory(prefix="blackhole-cg-tests-") as name:
        results = run_all(Path(name), names, everything=obstacle is None)
    print("\n" + render(results))
    return 1 if any(counts.failed for counts in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
