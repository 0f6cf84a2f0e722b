#!/bin/sh
# Unpacks Debian's ostree-prepare-root, ostree and fsverity with what they link against into
# target/lab/prepare-oracle-SUITE, a tree to chroot into. Does nothing when the tree is there. Usage: prepare-oracle.sh SUITE LAB_DIRECTORY
# The mirror is the machine's own: the first http(s) source of apt that carries Debian's main archive.
set -eu
suite=$1
mkdir -p "$2"
lab=$(cd "$2" && pwd)
tree=$lab/prepare-oracle-$suite
# The stamp is this script itself: another recipe makes another tree.
cmp -s "$0" "$tree/.complete" && exit 0

for tool in mmdebstrap:mmdebstrap ostree:ostree unshare:util-linux; do
    command -v "${tool%%:*}" >/dev/null || apt-get install -y --no-install-recommends "${tool##*:}" >&2
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || apt-get install -y --no-install-recommends debian-archive-keyring >&2

mirror=$(apt-get indextargets --format '$(SITE) $(REPO_URI) $(COMPONENT) $(ORIGIN) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
    awk '$3 == "main" && $4 == "Debian" && $5 == "Debian" { print $2; exit }')
[ -n "$mirror" ] || mirror=$(sed -n 's/^URIs: *\(http[^ ]*\/debian\/\{0,1\}\)$/\1/p; s/^deb .*\(http[^ ]*\/debian\/\{0,1\}\) .*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
[ -n "$mirror" ] || { echo "prepare-oracle: apt on this machine has no Debian mirror" >&2; exit 1; }

scratch=$(mktemp -d "$lab/prepare-oracle.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
# The libraries by dependency, the tools themselves alone: one depends on a whole initramfs framework.
# The Release file of testing is good for a week only: a mirror that lags behind is no less an oracle, and what it
# signed is still checked.
mmdebstrap --quiet --variant=extract --include=base-files,libostree-1-1,fsverity --keyring=$keyring \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --setup-hook='mkdir -p "$1/usr/lib64" "$1/usr/lib" "$1/usr/bin" "$1/usr/sbin"' \
    --setup-hook='ln -s usr/lib64 "$1/lib64"; ln -s usr/lib "$1/lib"; ln -s usr/bin "$1/bin"; ln -s usr/sbin "$1/sbin"' \
    --skip=cleanup/apt \
    "$suite" "$scratch/tree" "$mirror" >&2
(cd "$scratch" && apt-get -q -o Dir="$scratch/tree" -o Dir::State::status="$scratch/tree/var/lib/dpkg/status" \
    -o APT::Sandbox::User=root download ostree-boot ostree >&2)
for package in ostree-boot ostree; do dpkg-deb -x "$scratch/$package"_*.deb "$scratch/deb"; done
mkdir -p "$scratch/tree/usr/lib/ostree"
cp "$scratch/deb/usr/lib/ostree/ostree-prepare-root" "$scratch/tree/usr/lib/ostree/"
cp "$scratch/deb/usr/bin/ostree" "$scratch/tree/usr/bin/"
# Kept: the tools, what they load, and libgcc_s for ours. Debian's own configuration is not: each test writes its.
tools="usr/lib/ostree/ostree-prepare-root usr/bin/ostree usr/bin/fsverity"
loader=$(cd "$scratch/tree" && ls usr/lib64/ld-linux*.so.* usr/lib/ld-linux*.so.* lib64/ld-linux*.so.* 2>/dev/null | head -n 1)
small=$scratch/small
mkdir -p "$small/usr/lib64" "$small/usr/lib"
ln -s usr/lib64 "$small/lib64"
ln -s usr/lib "$small/lib"
{
    for tool in $tools; do chroot "$scratch/tree" "/$loader" --list "/$tool" | grep -o '/[^ ]*'; done
    (cd "$scratch/tree" && find usr/lib -name 'libgcc_s.so.1')
    echo "$loader"
    printf '%s\n' $tools
} | sort -u | while read -r file; do
    mkdir -p "$small/$(dirname "$file")"
    cp -L "$scratch/tree/$file" "$small/$file"
done
# Status 1 is the usage message; anything above is a loader or library that is missing.
status=0
chroot "$small" /usr/lib/ostree/ostree-prepare-root >/dev/null 2>&1 || status=$?
[ $status -eq 1 ] || { echo "prepare-oracle: the tool of $suite does not run (status $status)" >&2; exit 1; }
rm -rf "$tree"
cp "$0" "$small/.complete"
mv "$small" "$tree"
