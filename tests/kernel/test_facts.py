"""Host facts from captured kernel text: hybrid, unified, container, read-only, none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blackhole_cg.kernel.facts import (
    CgroupPlace,
    Mount,
    find_cgroup2,
    find_cgroup_place,
    parse_kernel_version,
    parse_mountinfo,
    parse_own_cgroup,
    parse_proc_cgroups,
    read_host_facts,
)

HYBRID_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED_MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
READ_ONLY_MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
"""
BIND_MOUNTS = """\
30 23 0:26 /docker/abc /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime master:9 - cgroup2 cgroup rw
"""
HYBRID_CGROUPS = """\
#subsys_name	hierarchy	num_cgroups	enabled
cpuset	3	1	1
cpu	1	1	1
blkio	7	1	1
memory	4	12	1
pids	0	1	0
"""
UNIFIED_CGROUPS = HYBRID_CGROUPS.replace("\t3\t", "\t0\t").replace("\t1\t1\t1", "\t0\t1\t1")


def host(
    base: Path,
    mounts: str,
    own: str,
    controllers: str = "",
    *,
    cgroups: str = UNIFIED_CGROUPS,
    point: str = "sys/fs/cgroup",
) -> Path:
    """A host as far as these facts look at it, as a directory."""
    (base / "proc/self").mkdir(parents=True)
    (base / "proc/sys/kernel/random").mkdir(parents=True)
    (base / "proc/sys/kernel/random/boot_id").write_text("b00t\n")
    (base / "proc/self/mountinfo").write_text(mounts)
    (base / "proc/self/cgroup").write_text(own)
    (base / "proc/cgroups").write_text(cgroups)
    (base / point).mkdir(parents=True)
    (base / point / "cgroup.controllers").write_text(controllers)
    return base


def test_mountinfo_with_and_without_optional_fields() -> None:
    mounts = parse_mountinfo(HYBRID_MOUNTS + UNIFIED_MOUNTS)
    assert [mount.kind for mount in mounts] == ["proc", "ext4", "tmpfs", "cgroup", "cgroup2", "cgroup2"]
    assert mounts[3].point == "/sys/fs/cgroup/memory"
    assert mounts[5].options >= {"nsdelegate", "noexec"}


def test_mountinfo_escapes() -> None:
    (mount,) = parse_mountinfo(r"1 2 0:3 / /mnt/with\040space\134x ro - cgroup2 cgroup2 rw")
    assert (mount.point, mount.writable) == ("/mnt/with space\\x", False)


@pytest.mark.parametrize("text", [READ_ONLY_MOUNTS + UNIFIED_MOUNTS, UNIFIED_MOUNTS + READ_ONLY_MOUNTS])
def test_a_writable_mount_is_preferred(text: str) -> None:
    found = find_cgroup2(parse_mountinfo(text))
    assert isinstance(found, Mount) and found.writable


def test_own_cgroup() -> None:
    assert parse_own_cgroup("9:pids:/x\n0::/system.slice/a:b.service\n") == "/system.slice/a:b.service"
    assert parse_own_cgroup("0::/gone (deleted)\n") == "/gone"
    assert parse_own_cgroup("9:pids:/x\n") is None


def test_proc_cgroups() -> None:
    parsed = parse_proc_cgroups(HYBRID_CGROUPS)
    assert parsed["memory"] == (4, True)
    assert parsed["pids"] == (0, False)


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-13-cloud-amd64", (6, 1)), ("5.14.0", (5, 14)), ("6.18-rc1", (6, 18)), ("odd", (0, 0))],
)
def test_kernel_versions(release: str, version: tuple[int, int]) -> None:
    assert parse_kernel_version(release) == version


def test_a_hybrid_host_says_where_each_controller_is(tmp_path: Path) -> None:
    point = "sys/fs/cgroup/unified"
    base = host(tmp_path, HYBRID_MOUNTS, "0::/\n", "hugetlb\n", cgroups=HYBRID_CGROUPS, point=point)
    place = find_cgroup_place(None, base)
    assert place == CgroupPlace(base / point, base / point, base / point / "blackhole-cg", base / point, None)
    facts = read_host_facts(place, base)
    assert facts.boot_id == "b00t"
    assert facts.cgroup_root == str(base / point / "blackhole-cg")
    assert facts.controllers == {
        "cpu": "bound to cgroup v1 on this host",
        "cpuset": "bound to cgroup v1 on this host",
        "memory": "bound to cgroup v1 on this host",
        "io": "bound to cgroup v1 on this host",
        "pids": "disabled on the kernel command line",
    }


def test_a_container_without_systemd_uses_a_directory_of_its_own(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/\n", "cpuset cpu io memory pids\n")
    place = find_cgroup_place(None, base)
    assert place.root == base / "sys/fs/cgroup/blackhole-cg"
    assert set(read_host_facts(place, base).controllers.values()) == {None}


def test_once_we_are_in_the_leaf_below_it_that_directory_is_still_the_root(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/blackhole-cg/_supervisor\n", "memory pids\n")
    place, point = find_cgroup_place(None, base), base / "sys/fs/cgroup"
    assert (place.root, place.enable_from) == (point / "blackhole-cg", point)


def test_a_bind_mounted_part_of_the_hierarchy_is_its_own_root(tmp_path: Path) -> None:
    base = host(tmp_path, BIND_MOUNTS, "0::/docker/abc\n", "memory\n")
    assert find_cgroup_place(None, base).root == base / "sys/fs/cgroup/blackhole-cg"


def test_our_cgroup_outside_the_mount(tmp_path: Path) -> None:
    base = host(tmp_path, BIND_MOUNTS, "0::/elsewhere\n")
    place = find_cgroup_place(None, base)
    assert (place.root, place.problem) == (None, "the cgroup of this process is outside the cgroup v2 mount")


def test_a_unit_that_is_not_delegated(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/system.slice/x.service\n", "memory\n")
    (base / "sys/fs/cgroup/system.slice/x.service").mkdir(parents=True)
    if os.geteuid() != 0:
        pytest.skip("as an ordinary user the directory is ours, which counts as delegated")
    place = find_cgroup_place(None, base)
    assert place.root is None
    assert place.problem is not None and "is not delegated to it; set Delegate=yes" in place.problem
    facts = read_host_facts(place, base)
    assert facts.cgroup_problem == facts.controllers["memory"] == place.problem


@pytest.mark.parametrize("own", ["/system.slice/x.service", "/system.slice/x.service/supervisor"])
def test_a_delegated_unit_is_the_root_also_from_a_leaf_below_it(tmp_path: Path, own: str) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, f"0::{own}\n", "cpu memory pids\n")
    unit = base / "sys/fs/cgroup/system.slice/x.service"
    (base / f"sys/fs/cgroup{own}").mkdir(parents=True)
    (unit / "cgroup.controllers").write_text("memory pids\n")
    try:
        os.setxattr(unit, "user.delegate", b"1")
    except OSError as cause:
        pytest.skip(f"no extended attributes in the temporary directory: {cause}")
    place = find_cgroup_place(None, base)
    assert (place.root, place.enable_from) == (unit, unit)
    controllers = read_host_facts(place, base).controllers
    assert controllers["memory"] is None
    assert controllers["cpu"] == f"not delegated to {unit}"
    assert controllers["cpuset"] == "not offered by cgroup v2 here"


@pytest.mark.parametrize(
    "asked", ["mine/deeper", "/mine/deeper", "{point}/mine/deeper", "mine/./x/../deeper"]
)
def test_an_asked_root_is_taken_with_or_without_the_mount_point(tmp_path: Path, asked: str) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/system.slice/x.service\n", "memory\n")
    point = base / "sys/fs/cgroup"
    place = find_cgroup_place(asked.format(point=point), base)
    assert (place.root, place.enable_from, place.problem) == (point / "mine/deeper", point, None)


@pytest.mark.parametrize("asked", ["/", "", ".", "a/.."])
def test_the_mount_point_itself_is_refused(tmp_path: Path, asked: str) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/\n")
    place = find_cgroup_place(asked, base)
    assert (place.root, place.problem) == (None, "the cgroup v2 mount point itself cannot be the cgroup root")


def test_no_cgroup_v2_at_all(tmp_path: Path) -> None:
    base = host(tmp_path, HYBRID_MOUNTS.replace("cgroup2", "tmpfs"), "9:pids:/\n")
    place = find_cgroup_place(None, base)
    assert (place.mount, place.root, place.problem) == (None, None, "cgroup v2 is not mounted")
    assert read_host_facts(place, base).cgroup_mount is None


def test_a_read_only_mount(tmp_path: Path) -> None:
    base = host(tmp_path, READ_ONLY_MOUNTS, "0::/\n")
    for asked in (None, "mine"):
        place = find_cgroup_place(asked, base)
        assert (place.root, place.problem) == (None, "cgroup v2 is mounted read-only at /sys/fs/cgroup")


def test_a_place_without_permission(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/\n")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (base / "sys/fs/cgroup").chmod(0o555)
    place = find_cgroup_place(None, base)
    assert place.root is None
    assert place.problem == f"no permission to make cgroups in {base}/sys/fs/cgroup"


def test_a_units_directory_that_systemd_has_removed_will_have_what_is_ready_above_it(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/system.slice/blackhole-cg.service\n", "cpu io memory pids")
    slice_directory = base / "sys/fs/cgroup/system.slice"
    slice_directory.mkdir()
    (slice_directory / "cgroup.subtree_control").write_text("cpu memory pids\n")
    place = find_cgroup_place("/system.slice/holder.service", base)
    assert place.root == place.enable_from == slice_directory / "holder.service"
    assert not place.root.exists()
    reasons = read_host_facts(place, base).controllers
    assert (reasons["memory"], reasons["pids"]) == (None, None)
    assert reasons["io"] == f"not delegated to {place.root}"


def test_below_a_unit_only_the_units_own_directory_is_ours(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/\n")
    place = find_cgroup_place("/system.slice/holder.service/deeper", base)
    assert place.enable_from == base / "sys/fs/cgroup/system.slice/holder.service"
    assert find_cgroup_place("/mine/deeper", base).enable_from == base / "sys/fs/cgroup"


def test_a_users_unit_is_ours_and_that_of_the_users_manager_is_not(tmp_path: Path) -> None:
    base = host(tmp_path, UNIFIED_MOUNTS, "0::/\n")
    unit = "user.slice/user-7.slice/user@7.service/app.slice/holder.service"
    assert find_cgroup_place(f"/{unit}", base).enable_from == base / "sys/fs/cgroup" / unit
