"""A short chaos run, as `make test` has the time for; `make chaos` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.live import ROOT, require_cgroup

SEED = os.environ.get("BLACKHOLE_CG_CHAOS_SEED", "1")
SECONDS = os.environ.get("BLACKHOLE_CG_CHAOS_SECONDS", "")
QUIET_SECONDS = 1200
"""An emulated machine may need so long for its start, for what follows the faults, and for the verdict."""


def run_chaos(seconds: float) -> None:
    require_cgroup()
    if os.geteuid() != 0:
        pytest.skip("chaos mounts small disks and writes to cgroups: it needs root")
    command = [sys.executable, "-m", "tests.chaos", "--seed", SEED, "--minutes", str(seconds / 60)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + QUIET_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.rstrip().endswith("ok"), done.stdout


@pytest.mark.timeout(QUIET_SECONDS + 3600)
def test_every_service_ends_where_its_policy_prescribes_after_chaos():
    run_chaos(float(SECONDS or 15))


@pytest.mark.needs_kernel
@pytest.mark.any_kernel
@pytest.mark.timeout(QUIET_SECONDS + 3600)
def test_the_same_with_every_controller_and_jumps_of_the_clock():
    run_chaos(float(SECONDS or 75))
