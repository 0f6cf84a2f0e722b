#!/bin/sh
# Run by tests/it/prepare.rs in a mount namespace of its own: an initramfs with a physical root, a tool run in it.
# Usage: prepare-run.sh TREE TEMPLATE OUT SETUP TOOL [ARGUMENT ...]
# TREE becomes the initramfs, TEMPLATE (a directory, or a file with a file system) the physical root at /sysroot;
# SETUP is shell text that changes both before TOOL (a path in the initramfs) runs. OUT receives what is compared.
set -eu
tree=$1 template=$2 out=$3 setup=$4
shift 4
root=$out/root
mkdir -p "$root"
mount -t tmpfs initramfs "$root"
cp -a "$tree/." "$root/"
[ -z "${BOOTWARD:-}" ] || cp "$BOOTWARD" "$root/bootward"
mkdir -p "$root/run" "$root/proc" "$root/dev" "$root/sysroot" "$root/etc/ostree" "$root/usr/lib/ostree"
mount -t proc proc "$root/proc"
printf '%s\n' "$CMDLINE" >"$out/cmdline"
mount --bind "$out/cmdline" "$root/proc/cmdline"
mount -t tmpfs run "$root/run"
mount -t tmpfs dev "$root/dev"
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/null" c 1 3
if [ -d "$template" ]; then
    mount -t tmpfs physical "$root/sysroot"
    cp -a "$template/." "$root/sysroot/"
else
    cp --sparse=always "$template" "$out/physical"
    mount -o loop "$out/physical" "$root/sysroot"
    # As devtmpfs would have it.
    device=$(awk -v place="$root/sysroot" '$2 == place { print $1 }' /proc/self/mounts)
    cp -a "$device" "$root/dev/"
fi
umask 022
cd "$root"
deployment=$(echo sysroot/ostree/deploy/os/deploy/*.0)
eval "$setup"
stat -c '%d %i' "$deployment" >"$out/stat"
cat /proc/self/mountinfo >"$out/before"
status=0
cd /
chroot "$root" "$@" >"$out/stdout" 2>"$out/stderr" || status=$?
echo $status >"$out/status"
cat /proc/self/mountinfo >"$out/mountinfo"
(cd "$root/run" && find . -mindepth 1 ! -name ostree-booted -printf '%P %y %m %U:%G %l\n' | sort) >"$out/run"
[ ! -f "$root/run/ostree-booted" ] || cp "$root/run/ostree-booted" "$out/booted"
stat -c '%a' "$root/run/ostree-booted" >"$out/booted-mode" 2>/dev/null || :
ls -a "$root" >"$out/slash"
