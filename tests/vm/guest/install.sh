#!/bin/sh
# Runs as root inside the new system: Python packages, a kernel, and what makes the system fit for jobs.
# usage: install.sh SUITE KERNEL, with requirements.txt beside it
set -eu

suite=$1
kernel=$2
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# --- Python packages, by the guest's own interpreter; the compiler is for python-prctl and goes afterwards -----

compiler="gcc libc6-dev libcap-dev python3-dev"
# shellcheck disable=SC2086 # one package a word
apt-get install -y -qq --no-install-recommends $compiler
python3 -m venv /opt/venv
pip="/opt/venv/bin/python -m pip --quiet --no-input --no-cache-dir"
# The wheels stay in the image: what tests the installation of the project has no network. The build tools come
# first and are used without build isolation, which would ignore the pinned versions.
grep -E '^(setuptools|hatchling|editables|packaging|pathspec|pluggy|trove-classifiers|tomlkit)==' "$here/requirements.txt" >"$here/build-tools.txt"
$pip wheel --no-deps --wheel-dir /opt/wheels -r "$here/build-tools.txt"
$pip install --no-deps --no-index --find-links /opt/wheels -r "$here/build-tools.txt"
$pip wheel --no-deps --no-build-isolation --use-pep517 --wheel-dir /opt/wheels -r "$here/requirements.txt"
$pip install --no-deps --no-index --find-links /opt/wheels -r "$here/requirements.txt"
/opt/venv/bin/python -m pip check
/opt/venv/bin/python -c 'import prctl, pytest'
# shellcheck disable=SC2086
[ -x "$here/setup.sh" ] || apt-get purge -y -qq --auto-remove $compiler

# --- the kernel, unpacked without its installation scripts: there is no initrd and no boot loader --------------

case $suite-$kernel in
    bookworm-6.12)
        mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$suite //p" | head -n 1)
        echo "deb $mirror $suite-backports main" >/etc/apt/sources.list.d/backports.list
        apt-get update -qq
        ;;
esac
pattern="^linux-image-$(echo "$kernel" | sed 's/\./\\./g')[.+].*cloud-amd64\$"
package=$(apt-cache search --names-only "$pattern" | cut -d ' ' -f 1 | sort -V | tail -n 1)
[ -n "$package" ] || { echo "cannot find a kernel $kernel for $suite on this mirror" >&2; exit 1; }
mkdir "$here/kernel"
(cd "$here/kernel" && apt-get download -qq "$package" && dpkg-deb -x ./*.deb unpacked)
release=${package#linux-image-}
rm -rf /lib/modules
if [ -d "$here/kernel/unpacked/usr/lib/modules" ]; then
    cp -a "$here/kernel/unpacked/usr/lib/modules" /lib/modules
else
    cp -a "$here/kernel/unpacked/lib/modules" /lib/modules
fi
depmod "$release"
cp "$here/kernel/unpacked/boot/vmlinuz-$release" /boot/vmlinuz

# --- the system: small, the same every time, and nothing starts by itself --------------------------------------

echo 5b1ac4401ec64b0c8f0000000000c600 >/etc/machine-id # a fixed one: no first-boot preset pass
echo vm >/etc/hostname
printf '127.0.0.1 localhost vm\n::1 localhost\n' >/etc/hosts
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >/etc/systemd/journald.conf.d/vm.conf
useradd --create-home --shell /bin/bash tester
passwd -q -d root

systemctl disable -q nginx redis-server postgresql prometheus 2>/dev/null || true
# Under emulation every unit and every module costs; these do nothing for a test.
for unit in getty@tty1.service serial-getty@ttyS0.service getty.target systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-random-seed.service systemd-pstore.service systemd-repart.service \
    systemd-journal-flush.service systemd-timesyncd.service systemd-binfmt.service systemd-sysctl.service \
    proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount \
    modprobe@drm.service modprobe@efi_pstore.service \
    e2scrub_all.timer e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    fstrim.timer logrotate.timer systemd-tmpfiles-clean.timer; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
# The job waits for its disks; waiting for udev to find their driver takes longer.
printf 'virtio_pci\nvirtio_blk\n' >/etc/modules-load.d/disks.conf

mkdir -p /work /job /out
install -m 755 "$here/bh-job" "$here/bh-end" "$here/install-project" /usr/local/sbin/
install -m 644 "$here/bh-job.service" /etc/systemd/system/
systemctl enable -q bh-job.service

# What another use of this system adds, if there is one: vagrant/box.
[ ! -x "$here/setup.sh" ] || "$here/setup.sh"

apt-get clean
rm -rf /etc/resolv.conf /var/lib/apt/lists/* /var/cache/apt/*.bin
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/sources.list.d/backports.list
