"""Which test proves which limit: the table behind docs/isolation.md and tests/break_limits.py."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent / "system/limits"

# What the kernel calls the limit -> (file, test), in the order of the report.
PROOFS = {
    "cpu.max": ("test_cpu.py", "test_cpu_max_gives_a_spinning_service_its_share_and_no_more"),
    "cpu.weight": ("test_cpu.py", "test_cpu_weight_divides_a_contended_cpu"),
    "cpuset.cpus": ("test_cpu.py", "test_cpuset_keeps_every_process_on_its_cpu"),
    "memory.max": (
        "test_memory.py",
        "test_memory_max_kills_the_service_that_outgrows_it_and_the_policy_restarts_it",
    ),
    "memory.high": (
        "test_memory.py",
        "test_memory_high_is_90_percent_by_default_and_reclaims_without_a_kill",
    ),
    "memory.oom.group": (
        "test_memory.py",
        "test_memory_oom_group_decides_whether_the_main_process_goes_with_its_child",
    ),
    "memory.swap.max": ("test_memory.py", "test_memory_swap_max_bounds_what_is_swapped"),
    "memory.low": ("test_memory.py", "test_memory_low_is_spared_while_a_neighbour_has_memory_to_give"),
    "io.max": ("test_io.py", "test_io_max_caps_bytes_and_operations"),
    "io.bfq.weight": ("test_io.py", "test_io_weight_divides_a_disk_under_bfq"),
    "io.weight": ("test_io.py", "test_io_weight_divides_a_disk_under_io_cost"),
    "pids.max": ("test_processes.py", "test_pids_max_stops_a_fork_bomb_and_the_supervisor_answers_meanwhile"),
    "RLIMIT_NOFILE": ("test_processes.py", "test_rlimits_are_where_open_fork_and_write_fail"),
    "RLIMIT_NPROC": ("test_processes.py", "test_rlimits_are_where_open_fork_and_write_fail"),
    "RLIMIT_FSIZE": ("test_processes.py", "test_rlimits_are_where_open_fork_and_write_fail"),
}


def proof_of(limit: str) -> str:
    """The proof of a limit as pytest takes it."""
    file, test = PROOFS[limit]
    return f"{DIRECTORY / file}::{test}"
