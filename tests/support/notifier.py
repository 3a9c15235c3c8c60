"""A service of the tests' own that speaks sd_notify(3), as the text of a Python script."""

from __future__ import annotations

import sys
from pathlib import Path

PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
"""One that every user can execute, where there is one."""

SAY = """
import os, socket, time
def say(*lines, path=os.environ.get("NOTIFY_SOCKET")):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto("\\n".join(lines).encode(), path)
def until(path):
    while not os.path.exists(path): time.sleep(0.01)
"""
