"""io.max and io.weight, with direct I/O on a disk that QEMU holds at 200 operations a second."""

from __future__ import annotations

import pytest

from tests.support.evidence import record
from tests.support.live import Live
from tests.system.limits.loads import LEAST_RATIO, dd, grown, reader
from tests.system.limits.measure import MIB, Disk, held, measured


def shares(live: Live, disk: Disk, least: float, most: float) -> tuple[float, float, float]:
    """The throughput of `light` and `heavy` in MiB a second, and their ratio, which is to be in between."""
    light, heavy = measured(
        lambda: grown(live, disk, ("light", "rbytes"), ("heavy", "rbytes")),
        lambda light, heavy: least <= heavy / light <= most,
    )
    return light / MIB, heavy / MIB, heavy / light


@pytest.fixture
def contend(limited):
    """Runs two readers of one disk, of weight 100 and 1000."""

    def make(disk: Disk) -> Live:
        return limited({
            "light": reader(disk, "light", io_weight=100),
            "heavy": reader(disk, "heavy", io_weight=1000),
        })  # fmt: skip

    return make


def test_io_max_caps_bytes_and_operations(limited, disk):
    live = limited({
        "writer": dd(disk, f"if=/dev/zero of={disk.path} oflag=direct conv=notrunc", "writer",
                     io_max={str(disk.path): {"wbps": "1M"}}),
        "reader": reader(disk, "reader", io_max={disk.number: {"riops": 20}}),
    })  # fmt: skip
    written, read = measured(
        lambda: grown(live, disk, ("writer", "wbytes"), ("reader", "rios")),
        lambda written, read: 0.8 * MIB <= written <= 1.2 * MIB and 16 <= read <= 24,
    )
    assert 0.8 * MIB <= written <= 1.2 * MIB
    assert 16 <= read <= 24
    assert held(live, "writer", "io.max") == f"{disk.number} rbps=max wbps={MIB} riops=max wiops=max"
    assert held(live, "reader", "io.max") == f"{disk.number} rbps=max wbps=max riops=20 wiops=max"
    assert live.status("writer")["limits"]["io_max"]["enforced"]
    effect = (
        f"a direct writer got {written / MIB:.2f} MiB/s; "
        f"a direct reader with `riops: 20` did {read:.1f} operations/s"
    )
    held_text = f"rbps=max wbps={MIB} riops=max wiops=max"
    record("io.max", "io_max: {DISK: {wbps: 1M}}", held_text, effect, "block throttling, any disk")


def test_io_weight_divides_a_disk_under_bfq(contend, bfq):
    live = contend(bfq)
    light, heavy, ratio = shares(live, bfq, LEAST_RATIO, 15)
    assert LEAST_RATIO <= ratio <= 15, (light, heavy)
    assert held(live, "heavy", "io.bfq.weight") == "default 1000"
    limit = live.status("heavy")["limits"]["io_weight"]
    assert limit["enforced"]
    assert f"{bfq.name} by bfq" in limit["reason"]
    effect = f"two direct readers, 1000 beside 100: {heavy:.1f} and {light:.1f} MiB/s, {ratio:.1f} : 1"
    record("io.bfq.weight", "io_weight: 1000", "1000", effect, "BFQ scheduler")


def test_io_weight_divides_a_disk_under_io_cost(contend, io_cost):
    live = contend(io_cost)
    light, heavy, ratio = shares(live, io_cost, LEAST_RATIO, 15)
    assert LEAST_RATIO <= ratio <= 15, (light, heavy)
    assert held(live, "heavy", "io.weight") == "default 1000"
    limit = live.status("heavy")["limits"]["io_weight"]
    assert limit["enforced"]
    assert f"{io_cost.name} by io.cost" in limit["reason"]
    effect = f"two direct readers, 1000 beside 100: {heavy:.1f} and {light:.1f} MiB/s, {ratio:.1f} : 1"
    record("io.weight", "io_weight: 1000", "1000", effect, "io.cost, user model")


def test_io_weight_that_nothing_heeds_is_told(contend, disk):
    live = contend(disk)
    light, heavy, ratio = shares(live, disk, 0.7, 1.4)
    assert 0.7 <= ratio <= 1.4, (light, heavy)
    limit = live.status("heavy")["limits"]["io_weight"]
    assert limit["effective"] == 1000
    assert not limit["enforced"]
    assert disk.name in limit["reason"]
    assert "neither the BFQ scheduler nor io.cost is active" in limit["reason"]
    effect = f"none, and the status says so: {heavy:.1f} and {light:.1f} MiB/s, {ratio:.1f} : 1"
    record("io.weight", "io_weight: 1000", "1000", effect, "neither: scheduler `none`, no io.cost")
