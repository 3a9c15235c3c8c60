"""A cgroup directory made of ordinary files, with the text of a real kernel (6.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILES: Final = {
    "cgroup.procs": "",
    "cpu.stat": (
        "usage_usec 5000000\nuser_usec 4000000\nsystem_usec 1000000\n"
        "nr_periods 100\nnr_throttled 40\nthrottled_usec 1234567\nnr_bursts 0\nburst_usec 0\n"
    ),
    "cpu.pressure": (
        "some avg10=12.50 avg60=3.00 avg300=0.70 total=900\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    ),
    "memory.current": "104857600\n",
    "memory.stat": (
        "anon 52428800\nfile 41943040\nkernel 1048576\nkernel_stack 16384\npagetables 90112\n"
        "percpu 480\nsock 0\nvmalloc 0\nshmem 0\nzswap 0\nzswapped 0\nfile_mapped 0\nfile_dirty 0\n"
        "file_writeback 0\nswapcached 0\nanon_thp 0\nfile_thp 0\nshmem_thp 0\ninactive_anon 52424704\n"
        "active_anon 4096\ninactive_file 20971520\nactive_file 20971520\nunevictable 0\n"
        "slab_reclaimable 100000\nslab_unreclaimable 200000\nslab 300000\nworkingset_refault_anon 0\n"
        "workingset_refault_file 0\nworkingset_activate_anon 0\nworkingset_activate_file 0\n"
        "workingset_restore_anon 0\nworkingset_restore_file 0\nworkingset_nodereclaim 0\npgscan 0\n"
        "pgscan_kswapd 0\npgscan_direct 0\npgsteal_kswapd 0\npgsteal_direct 0\npgfault 20000\npgmajfault 3\n"
        "pgrefill 0\npgactivate 5000\npgdeactivate 0\npglazyfree 0\npglazyfreed 0\nthp_fault_alloc 0\n"
        "thp_collapse_alloc 0\n"
    ),
    "memory.events": "low 0\nhigh 7\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\n",
    "memory.pressure": (
        "some avg10=64.95 avg60=20.00 avg300=4.00 total=7000\n"
        "full avg10=33.30 avg60=9.00 avg300=1.00 total=80\n"
    ),
    "io.stat": (
        "8:0 rbytes=1000 wbytes=2000 rios=1 wios=2 dbytes=0 dios=0\n"
        "253:32 rbytes=24 wbytes=48 rios=1 wios=1 dbytes=0 dios=0\n"
    ),
    "io.pressure": (
        "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n"
    ),
    "pids.current": "6\n",
}


def make_cgroup(directory: Path, **changes: str | None) -> Path:
    """The directory with all files; `pids__current="9"` says otherwise, None leaves the file out."""
    directory.mkdir(exist_ok=True)
    texts = {**FILES, **{name.replace("__", "."): text for name, text in changes.items()}}
    for name, text in texts.items():
        if text is not None:
            (directory / name).write_text(text)
    return directory
