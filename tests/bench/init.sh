#!/bin/sh
# The initramfs of a product with its own script, after the steps of meta-updater's.
set -eu
[ -e /proc/cmdline ] || mount -t proc proc /proc
[ -e /sys/class ] || mount -t sysfs sysfs /sys
[ -e /dev/null ] || mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=755 tmpfs /run
root=LABEL=otaroot
read -r line </proc/cmdline
for word in $line; do
    case $word in ostree_root=*) root=${word#ostree_root=} ;; esac
done
mount -t ext4 "$root" /sysroot
$PREPARE /sysroot
mkdir -p /sysroot/run
mount --move /run /sysroot/run
exec switch_root /sysroot /sbin/init
