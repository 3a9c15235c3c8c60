#!/bin/sh
# Runs as root inside the new system, as the last step of building the test VM's image (tests/vm/guest/install.sh):
# turns it into a machine that Vagrant can use. There is no network beyond the host in it, so everything that
# installing the project needs is in here.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
release=$(ls /lib/modules)

# --- the project's packages, for pip without an index ----------------------------------------------------------

/opt/venv/bin/python -m pip wheel --quiet --no-input --no-cache-dir --no-deps --no-build-isolation --use-pep517 \
    --wheel-dir /opt/wheels -r "$here/constraints.txt"
printf '[global]\nno-index = true\nfind-links = /opt/wheels\n' >/etc/pip.conf

# --- the user that Vagrant logs in as, with the key that every Vagrant has ------------------------------------

useradd --create-home --shell /bin/bash vagrant
install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
install -m 600 -o vagrant -g vagrant "$here/authorized_keys" /home/vagrant/.ssh/authorized_keys
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/vagrant
chmod 440 /etc/sudoers.d/vagrant
printf 'UseDNS no\nGSSAPIAuthentication no\n' >/etc/ssh/sshd_config.d/vagrant.conf

# --- the network: one card for ssh, one by which the machine is recognised; see vagrant/box/Vagrantfile --------

card() {
    printf '[Match]\nMACAddress=%s\n[Network]\nAddress=%s\n%sLinkLocalAddressing=no\n' "$2" "$3" "$4" \
        >"/etc/systemd/network/$1.network"
}
card ssh 52:54:00:00:bc:01 10.0.2.15/24 'Gateway=10.0.2.2
'
card known 52:54:00:00:bc:02 192.168.123.2/24 ''
systemctl enable -q systemd-networkd
systemctl disable -q systemd-networkd-wait-online.service bh-job.service

# --- an initrd: libvirt puts the root on a virtio disk, whose driver is not built into this kernel --------------

initrd=$(mktemp -d)
mkdir "$initrd/bin" "$initrd/dev" "$initrd/proc" "$initrd/modules" "$initrd/root"
cp /bin/busybox "$initrd/bin/"
{
    printf '#!/bin/busybox sh\nset -e\n'
    modprobe --show-depends --set-version "$release" --all virtio_pci virtio_blk | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r module; do
            cp "$module" "$initrd/modules/"
            echo "/bin/busybox insmod /modules/$(basename "$module")"
        done
    printf '/bin/busybox %s\n' 'mount -t devtmpfs dev /dev' 'mount -t ext4 /dev/vda /root' 'umount /dev'
    echo 'exec /bin/busybox switch_root /root /sbin/init'
} >"$initrd/init"
chmod +x "$initrd/init"
(cd "$initrd" && find . | cpio --quiet --create --format=newc | gzip) >/boot/initrd
rm -rf "$initrd"
