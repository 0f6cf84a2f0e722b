#!/bin/sh
# An initramfs without a tool of its own: what ostree-prepare-root does with sysroot.readonly, by a shell.
set -eu
read -r line </proc/cmdline
for word in $line; do
    case $word in ostree=*) target=${word#ostree=} ;; esac
done
deployment=$(readlink -f "/sysroot$target")
readonly=false
while read -r key; do
    [ "$key" != readonly=true ] || readonly=true
done </sysroot/ostree/repo/config
mount --make-rprivate /
mkdir -p /run/ostree /sysroot.tmp
mount --bind "$deployment" /sysroot.tmp
if $readonly; then
    mount --bind "$deployment/etc" /sysroot.tmp/etc
    mount -o remount,bind,rw none /sysroot.tmp/etc
fi
mount --bind /sysroot.tmp/usr /sysroot.tmp/usr
mount -o remount,bind,ro none /sysroot.tmp/usr
mount --bind /sysroot /sysroot.tmp/sysroot
umount -l /sysroot
if $readonly; then
    var=/sysroot.tmp/sysroot${deployment#/sysroot}/../../var
    mount --bind "$var" "$var"
    mount -o remount,bind,rw none "$var"
fi
: >/run/ostree-booted
mount --move /sysroot.tmp /sysroot
rmdir /sysroot.tmp
if $readonly; then
    mount -o remount,bind,ro none /sysroot/sysroot
fi
