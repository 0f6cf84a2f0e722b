#!/bin/sh
# Run by tests/it/prepare.rs in a mount namespace of its own: a sysroot with one deployment, made by the ostree of
# the oracle. Usage: prepare-sysroot.sh TREE OUT
# Makes OUT/sysroot and OUT/options. Where that ostree can do composefs the deployment has an image, and OUT/ext4
# and OUT/btrfs are file systems with the sysroot: an image cannot be mounted from a tmpfs.
set -eu
oracle=$1
out=$2
cd "$out"
mkdir -p tree sysroot root
(
    cd tree
    mkdir -p usr/bin usr/etc usr/lib/modules/6.1.0 boot var sysroot run dev proc sys
    echo kernel >usr/lib/modules/6.1.0/vmlinuz
    echo initramfs >usr/lib/modules/6.1.0/initramfs.img
    echo ID=os >usr/etc/os-release
    seq 100000 >usr/bin/large
)
mount -t tmpfs root root
cp -a "$oracle/." root/
mkdir -p root/proc root/work root/tmp root/etc root/dev root/var/tmp
mount --bind . root/work
mount -t proc proc root/proc
mount --bind /dev root/dev
export OSTREE_SYSROOT_DEBUG=mutable-deployments
ostree() { chroot root ostree "$@" >&2; }
metadata=
ostree admin init-fs /work/sysroot
ostree admin --sysroot=/work/sysroot os-init os
if chroot root ostree --version | grep -q composefs; then
    ostree --repo=/work/sysroot/ostree/repo config set ex-integrity.composefs yes
    metadata=--generate-composefs-metadata
    # By this the image has the digests of the objects, and is the one that the commit names.
    mkdir -p tree/usr/lib/ostree
    printf '[composefs]\nenabled=verity\n' >tree/usr/lib/ostree/prepare-root.conf
fi
ostree --repo=/work/sysroot/ostree/repo commit -b os --tree=dir=/work/tree $metadata
ostree admin --sysroot=/work/sysroot deploy --os=os os
# Versions before that switch make it immutable all the same.
chattr -R -i sysroot/ostree/deploy/os/deploy/*.0 2>/dev/null || :
cat sysroot/boot/loader/entries/*.conf >options
[ -n "$metadata" ] || exit 0
mke2fs -q -t ext4 -d sysroot ext4 32M
truncate -s 128M btrfs
mkfs.btrfs -q --rootdir sysroot btrfs
