"""The report about the limits: it leaves none out, and each has a test that proves it."""

from __future__ import annotations

import ast

import pytest

from blackhole_cg.core.limits import cgroup_limits
from blackhole_cg.core.spec import IoMax, ResourceLimits
from tests.break_limits import told
from tests.isolation_report import KERNELS, REPORT, render
from tests.proofs import DIRECTORY, PROOFS

EVERYTHING = ResourceLimits(
    cpu_percent=50, cpu_weight=100, cpuset_cpus="0", memory_max_bytes=2**20, memory_high_bytes=2**20,
    memory_low_bytes=2**20, memory_swap_max_bytes=0, memory_oom_group=True, io_weight=100,
    io_max=(IoMax("8:0"),), pids_max=1,
)  # fmt: skip


def test_every_file_the_supervisor_writes_has_a_proof() -> None:
    files = {limit.file for limit in cgroup_limits(EVERYTHING, {"8:0": "8:0"})}
    assert files | {"io.bfq.weight", "RLIMIT_NOFILE", "RLIMIT_NPROC"} <= set(PROOFS)


@pytest.mark.parametrize("limit", PROOFS)
def test_each_proof_is_a_test_that_exists(limit: str) -> None:
    file, test = PROOFS[limit]
    tree = ast.parse((DIRECTORY / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("limit", PROOFS)
def test_the_committed_report_has_the_effect_of_each_limit_on_each_kernel(limit: str) -> None:
    text = REPORT.read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| `{limit}` |")]
    measured, broken = rows[:-1], rows[-1]
    assert measured, "no effect was measured"
    assert all(len(row) == 4 + len(KERNELS) and all(row) for row in measured)
    unnoticed = broken[2]
    assert unnoticed.startswith("failed: "), "breaking it made no test fail"


def test_the_report_is_the_same_for_the_same_measurements() -> None:
    record = {
        "limit": "cpu.max", "requested": "cpu_percent: 20", "held": "20000 100000", "effect": "20 %",
        "mechanism": "CFS bandwidth", "kernel": "6.1.0",
    }  # fmt: skip
    broken = {"limit": "cpu.max", "how": "ignored", "outcome": "failed", "told": "assert 99 | 20"}
    text = render({"6.1": [record], "6.12": [record]}, [broken])
    assert "| `cpu.max` | `cpu_percent: 20` | `20000 100000` | CFS bandwidth | 20 % | 20 % |" in text
    assert "| `cpu.max` | failed: assert 99 \\| 20 | - |" in text


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "AssertionError: (49.894, 1)\nassert 3 <= (49.8344951 / 49.8943)",
            "(49.89, 1) assert 3 <= (49.83 / 49.89)",
        ),
        ("AssertionError: assert ['a'] == ['b']\n  At index 0 diff", "assert ['a'] == ['b']"),
        (
            "AssertionError: log\nblackhole-cg: cannot start 'spin': set cpu_max to 1: wrote it\nrolled back",
            "refuses to start: set cpu_max to 1: wrote it",
        ),
    ],
)
def test_what_noticed_a_broken_limit_is_told_in_one_line(message: str, line: str) -> None:
    assert told(message) == line
