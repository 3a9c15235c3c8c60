"""What the tests of the limits share: services without any limit but those asked for, and a disk."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.configs import config
from tests.support.live import Live
from tests.support.real_kernel import in_test_vm
from tests.system.limits.measure import Disk

SCRATCH = Path("/dev/disk/by-id/virtio-scratch0")
UNLIMITED = {"default_cpu_percent": "max", "default_memory_mb": "max"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is about the real kernel, and slow under emulation."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.needs_kernel)
            item.add_marker(pytest.mark.every_kernel)
            item.add_marker(pytest.mark.timeout(600))


def reload(
    live: Live, services: dict[str, dict[str, Any]], *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Give a supervisor that `limited` made another configuration."""
    live.config.write_text(yaml.safe_dump(config(services, isolation="required", resource_limits=UNLIMITED)))
    return live.cli("reload", *arguments, check=check)


@pytest.fixture
def limited(supervise: Callable[..., Live]) -> Callable[[dict[str, dict[str, Any]]], Live]:
    """Runs services with `isolation: required` and without the default limits."""

    def make(services: dict[str, dict[str, Any]]) -> Live:
        return supervise(config(services, isolation="required", resource_limits=UNLIMITED))

    return make


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="bh-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def disk() -> Disk:
    """The scratch disk, which no scheduler and no cost model is in charge of."""
    if not in_test_vm() or not SCRATCH.exists():
        pytest.skip("overwrites a scratch disk, so it runs in the test VM only, with --scratch")
    name = SCRATCH.resolve().name
    number = SCRATCH.stat().st_rdev
    found = Disk(SCRATCH, name, f"{os.major(number)}:{os.minor(number)}")
    found.use_scheduler("none")
    return found


@pytest.fixture
def bfq(disk: Disk) -> Iterator[Disk]:
    """The scratch disk under the BFQ scheduler."""
    subprocess.run(["modprobe", "bfq"], check=True)
    disk.use_scheduler("bfq")
    yield disk
    disk.use_scheduler("none")


@pytest.fixture
def io_cost(disk: Disk) -> Iterator[Disk]:
    """The scratch disk under io.cost, with a model of what QEMU lets through: 200 times 64 KiB a second."""
    mount = Path("/sys/fs/cgroup")
    rates = "rbps=12800000 rseqiops=200 rrandiops=200 wbps=12800000 wseqiops=200 wrandiops=200"
    (mount / "io.cost.model").write_text(f"{disk.number} ctrl=user model=linear {rates}")
    qos = "ctrl=user rpct=0 rlat=0 wpct=0 wlat=0 min=100 max=100"
    (mount / "io.cost.qos").write_text(f"{disk.number} enable=1 {qos}")
    yield disk
    (mount / "io.cost.qos").write_text(f"{disk.number} enable=0")


@pytest.fixture
def swap(tmp_path: Path) -> Iterator[None]:
    """256 MiB of swap while the test lasts."""
    if not in_test_vm():
        pytest.skip("adds swap to the host, so it runs in the test VM only")
    file = tmp_path / "swap"
    file.touch(0o600)
    subprocess.run(["fallocate", "--length", "256M", file], check=True)
    subprocess.run(["mkswap", file], check=True, capture_output=True)
    subprocess.run(["swapon", file], check=True)
    yield
    subprocess.run(["swapoff", file], check=True)
