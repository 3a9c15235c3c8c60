"""The two signals that the C library keeps to itself, 32 and 33, which it lets nobody set.

Whoever starts us may have left them ignored, and an ignored signal stays ignored across exec; a service must
begin with every disposition at its default. Source: signal(7), "Real-time signals"; rt_sigaction(2).
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

RESERVED: Final = (32, 33)
_SYSCALL_NUMBERS: Final = {
    "x86_64": 13,
    "aarch64": 134,
    "riscv64": 134,
    "armv7l": 174,
    "i686": 174,
    "ppc64le": 173,
}
_DEFAULT_ACTION: Final = bytes(64)  # SIG_DFL, no flags, no mask: zeros on every architecture
_MASK_BYTES: Final = 8


def unignore_reserved_signals(status: str) -> None:
    """Give those of them that are ignored, by SigIgn of /proc/self/status, their default back."""
    ignored = next((int(line[7:], 16) for line in status.splitlines() if line.startswith("SigIgn:")), 0)
    number = _SYSCALL_NUMBERS.get(os.uname().machine)
    if number is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for signal_number in RESERVED:
        if ignored >> (signal_number - 1) & 1:
            libc.syscall(number, signal_number, _DEFAULT_ACTION, None, ctypes.c_size_t(_MASK_BYTES))
