"""The programs of the host that Vagrant needs, and how they get there."""

from __future__ import annotations

from pathlib import Path

from tests.vm import tools

VAGRANT = {"vagrant": "vagrant"}
# Without libvirt-daemon-system: that one would start a daemon for the whole system.
MACHINE = {
    "libvirtd": "libvirt-daemon",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "rsync": "rsync",
}
BOX = {"qemu-img": "qemu-utils"}
# Debian's package of the plugin; one that somebody has installed for himself is of no use to another user.
PLUGINS = Path("/usr/share/rubygems-integration/all/gems")


def need_vagrant() -> None:
    """What it takes to check a Vagrantfile.

    Raises:
        Unavailable: it is not here, and this process cannot install it.
    """
    tools.need(VAGRANT, _plugin())


def need_machine() -> None:
    """What it takes to run a machine; raises like `need_vagrant`."""
    tools.need({**VAGRANT, **MACHINE, **BOX}, _plugin())


def need_box() -> None:
    """What it takes to pack a box; raises like `need_vagrant`."""
    tools.need(BOX)


def _plugin() -> list[str]:
    return [] if any(PLUGINS.glob("vagrant-libvirt-*")) else ["vagrant-libvirt"]
