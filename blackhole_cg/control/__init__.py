"""The control API, both ends: a server in the supervisor, a client for everyone else."""

from typing import Final

SOCKET_NAME: Final = "control.sock"
"""The control socket's name in the runtime directory."""
