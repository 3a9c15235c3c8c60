"""All tests: those for this host here, those that need a real kernel and systemd in the test VM, and one sum.

`python -m tests.everything [--host-only]`. Without the VM its tests count as skipped, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from tests.vagrant.needs import need_vagrant
from tests.vm.problems import Unavailable

ROOT = Path(__file__).parents[1]
IN_VM = ["-m", "needs_kernel", "tests/kernel", "tests/system"]
VM_TIMEOUT_SECONDS = 1800
VM_UNAVAILABLE = 77


@dataclass(frozen=True)
class Counts:
    """What a run of pytest came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


def read_report(path: Path) -> Counts:
    """The sums of a JUnit report."""
    suites = list(ET.parse(path).getroot().iter("testsuite"))
    total, failed, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return Counts(total - failed - skipped, failed, skipped)


def prepare() -> None:
    """Install what some tests can do without, where that is possible; without it they are skipped."""
    try:
        need_vagrant()
    except Unavailable as problem:
        print(f"==> vagrant/Vagrantfile will not be tested: {problem}", file=sys.stderr)


def on_this_host(directory: Path) -> Counts:
    """Run every test here but those that need a real kernel, which are the VM's."""
    report = directory / "host.xml"
    command = [sys.executable, "-m", "pytest", "-m", "not needs_kernel", f"--junitxml={report}"]
    code = subprocess.call(command, cwd=ROOT)
    return judge(report, code)


def in_the_vm(directory: Path) -> Counts:
    """Run what needs a real kernel in the VM."""
    report = directory / "vm.xml"
    command = [
        sys.executable,
        "-m",
        "tests.vm",
        "run",
        "--timeout",
        str(VM_TIMEOUT_SECONDS),
        "--junit",
        str(report),
    ]
    done = subprocess.run(
        [*command, "--", "python", "-m", "pytest", *IN_VM],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stderr.write(done.stderr)
    if done.returncode == VM_UNAVAILABLE:
        return Counts(
            skipped=1, note=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no VM"
        )
    return judge(report, done.returncode)


def judge(report: Path, code: int) -> Counts:
    """The report's sums; a run that failed without saying so in its report is one failure more."""
    if not report.exists():
        return Counts(failed=1, note=f"ended with {code} and left no report")
    counts = read_report(report)
    if code and not counts.failed:
        return Counts(counts.passed, 1, counts.skipped, f"ended with {code}")
    return counts


def main() -> int:
    """Run both and print the table; 0 only when nothing failed."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="blackhole-cg-tests-") as name:
        results = {"this host": on_this_host(Path(name))}
        if "--host-only" not in sys.argv[1:]:
            results["the test VM"] = in_the_vm(Path(name))
    print("\n                passed  failed  skipped")
    for place, counts in results.items():
        row = f"{place:<14}{counts.passed:>8}{counts.failed:>8}{counts.skipped:>9}  {counts.note}"
        print(row.rstrip())
    passed, failed, skipped = (
        sum(getattr(counts, each) for counts in results.values()) for each in ("passed", "failed", "skipped")
    )
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
