SUMMARY = "Configuration of bootward, for the initramfs and for the OS"
DESCRIPTION = "bootward.toml, and the public keys that signed commits are checked against."
SECTION = "base"

require bootward-common.inc

SRC_URI = "file://bootward.toml"

S = "${UNPACKDIR}"

inherit allarch

# The same file as for the class bootward_ostree_sign.
BOOTWARD_PUBLIC_KEYS ??= ""

do_configure[noexec] = "1"
do_compile[noexec] = "1"

# The machine's own bootward.toml comes by a bbappend, in a directory that FILESEXTRAPATHS puts first.
do_install() {
    install -D -m 0644 ${UNPACKDIR}/bootward.toml ${D}${sysconfdir}/bootward/bootward.toml
    if [ -n "${BOOTWARD_PUBLIC_KEYS}" ]; then
        install -m 0644 ${BOOTWARD_PUBLIC_KEYS} ${D}${sysconfdir}/bootward/keys.ed25519
        # Where there are keys, signed commits are asked for; a [verify] of the machine's own has the last word.
        if ! grep -q '^ *\[ *verify *\]' ${D}${sysconfdir}/bootward/bootward.toml; then
            printf '\n[verify]\nlevel = "full"\nkeys = "${sysconfdir}/bootward/keys.ed25519"\n' \
                >>${D}${sysconfdir}/bootward/bootward.toml
        fi
    fi
}
do_install[file-checksums] += "${@d.getVar('BOOTWARD_PUBLIC_KEYS') + ':True' if d.getVar('BOOTWARD_PUBLIC_KEYS') else ''}"

CONFFILES:${PN} += "${sysconfdir}/bootward/bootward.toml"
