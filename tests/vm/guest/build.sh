#!/bin/sh
# Runs on the host, called by mmdebstrap when the new system is unpacked: installs the rest and packs the image.
# usage: build.sh ROOT, with WORK (a directory), SUITE, KERNEL, SIZE and PLACE in the environment; PLACE is a
# directory of the new system, and WORK/copies lists files of the host to copy into it: "place<TAB>file".
#
# Nothing of the host is ever mounted below ROOT here: mmdebstrap deletes ROOT, and would delete that with it.
set -eu

root=$1
inside=$root$PLACE
mkdir -p "$inside"
cp "$WORK"/guest/* "$WORK/requirements.txt" "$WORK/pip.conf" "$inside/"
while IFS='	' read -r place file; do
    cp "$file" "$root$place"
done <"$WORK/copies"

tools=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# shellcheck disable=SC2046 # one variable a line, none with spaces
env -i PATH=$tools HOME=/root PIP_CONFIG_FILE="$PLACE/pip.conf" $(cat "$WORK/environment") \
    chroot "$root" sh "$PLACE/install.sh" "$SUITE" "$KERNEL"
rm -rf "$inside"
mv "$root"/boot/* "$WORK/out/"

# /proc, /sys and /dev are mounted here; a bind mount that is not recursive shows what lies below them.
bare=$(mktemp -d)
mount --bind "$root" "$bare"
trap 'umount "$bare" && rmdir "$bare"' EXIT
PATH=$tools mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -L root -d "$bare" -F "$WORK/out/root.img" "$SIZE"
