"""The test VM: a Debian with a real kernel, systemd and cgroup v2, under QEMU; see docs/testing.md.

Uses the standard library alone, because it runs on the host before anything is installed there.
"""
