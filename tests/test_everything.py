"""The sum of all tests: nothing that was skipped or went wrong is left out of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.everything import Counts, beside_the_host, judge, render, vms_at_once

JUNIT = """\
<testsuites><testsuite tests="6" failures="1" errors="1" skipped="2">
<testcase><skipped message="not root"/></testcase><testcase><skipped message="not root"/></testcase>
</testsuite></testsuites>
"""


def test_a_report_is_summed_with_the_reasons_of_what_was_skipped(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(JUNIT)
    assert judge(report, 1) == Counts(2, 2, Counter({"not root": 2}))


def test_a_run_that_failed_without_saying_so_is_a_failure(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    assert judge(report, 124) == Counts(failed=1, note="ended with 124 and left no report")
    report.write_text('<testsuite tests="1" failures="0" errors="0" skipped="0"/>')
    assert judge(report, 3) == Counts(1, 1, note="ended with 3")


def test_a_small_host_runs_vms_after_its_own_tests_and_a_large_one_beside_them() -> None:
    assert [beside_the_host(cores) for cores in (1, 2, 4, 6, 8)] == [0, 0, 1, 2, 3]
    assert [vms_at_once(cores) for cores in (1, 2, 4)] == [1, 1, 2]


def test_counts_of_several_runs_are_added_up() -> None:
    one, other = (
        Counts(1, 2, Counter({"not root": 1}), "ended with 3"),
        Counts(4, 0, Counter({"not root": 2})),
    )
    assert one + other == Counts(5, 2, Counter({"not root": 3}), "ended with 3")


def test_the_table_says_why_tests_were_skipped() -> None:
    here = Counts(10, 1, Counter({"not root": 2, "no VM": 1}))
    assert render({"this host": here, "VM, kernel 6.1": Counts(5)}).splitlines() == [
        "                  passed  failed  skipped",
        "this host             10       1        3",
        "VM, kernel 6.1         5       0        0",
        "   2 skipped (this host): not root",
        "   1 skipped (this host): no VM",
        "",
        "15 passed, 1 failed, 3 skipped",
    ]
