"""Packs the test VM's system as a box for vagrant-libvirt; what differs from that VM is in vagrant/box."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.vm.image import BOX, Image

VIRTUAL_SIZE_GIB = 3


def pack(image: Image, target: Path) -> None:
    """Write the box file. It is not compressed: it is read once, on this host."""
    disk = target.with_suffix(".img")
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(image.root), str(disk)]
    subprocess.run(convert, check=True)
    about = target.with_suffix(".json")
    about.write_text(json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": VIRTUAL_SIZE_GIB}))
    contents = {
        "metadata.json": about,
        "Vagrantfile": BOX / "Vagrantfile",
        "vmlinuz": image.kernel,
        "initrd": image.initrd,
        "box.img": disk,
    }
    with tarfile.open(target, "w") as tar:
        for name, path in contents.items():
            tar.add(path, name)
    disk.unlink()
    about.unlink()


def copy_project(files: list[Path], root: Path, target: Path) -> None:
    """Copy the project's files, for a user who may not be able to read them where they are."""
    for path in files:
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, place, follow_symlinks=False)
