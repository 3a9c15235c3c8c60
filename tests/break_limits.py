"""Breaks each limit and runs the test that should notice: `python -m tests.break_limits [LIMIT...]`.

For the test VM (`make report` runs it there). Each limit is broken in two ways: its write does nothing; and
that, while reading back tells the supervisor what it wanted to hear. Exit code 1 when a test passes all the
same.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.proofs import PROOFS, proof_of
from tests.support.broken import BREAK, IGNORED, UNNOTICED

PLACE = "BLACKHOLE_CG_BROKEN"
REFUSAL = re.compile(r"blackhole-cg: cannot start '\w+': (set .*)")
LONG_NUMBER = re.compile(r"\d+\.\d{3,}")


class Watcher:
    """A pytest plugin that keeps how the one test ended; what goes wrong after it proves nothing."""

    def __init__(self) -> None:
        self.outcome = "not run"
        self.message = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self.outcome = report.outcome if report.when == "call" else "not run"
            crash = getattr(report.longrepr, "reprcrash", None)
            self.message = crash.message if crash else str(report.longrepr or "")


def try_broken(limit: str, how: str) -> Watcher:
    """Run the limit's proof against a supervisor in which it is broken."""
    os.environ[BREAK] = f"{limit}:{how}"
    watcher = Watcher()
    pytest.main(["-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", proof_of(limit)], [watcher])
    return watcher


def told(message: str) -> str:
    """What noticed it, in one line: the supervisor's own refusal, or the assertion."""
    if refusal := REFUSAL.search(message):
        return f"refuses to start: {refusal[1]}"
    lines = message.removeprefix("AssertionError: ").splitlines()
    line = " ".join(line for line in lines if not line.startswith(" "))  # indented is pytest's explanation
    return LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", line)[:160]


def main(limits: list[str]) -> int:
    """Try all of them; 1 when one went unnoticed."""
    found = []
    for limit in limits or list(PROOFS):
        # rlimits are set by the child itself, between fork and exec, and not read back before exec.
        for how in (UNNOTICED,) if limit.startswith("RLIMIT_") else (IGNORED, UNNOTICED):
            watcher = try_broken(limit, how)
            result = {"limit": limit, "how": how, "outcome": watcher.outcome, "told": told(watcher.message)}
            print(f"==> {limit} {how}: {watcher.outcome}: {result['told']}", flush=True)
            found.append(result)
    if place := os.environ.get(PLACE):
        Path(place).write_text("".join(json.dumps(each) + "\n" for each in found))
    unnoticed = [each["limit"] for each in found if each["outcome"] != "failed"]
    if unnoticed:
        print(f"nothing failed with these broken: {', '.join(unnoticed)}", file=sys.stderr)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
