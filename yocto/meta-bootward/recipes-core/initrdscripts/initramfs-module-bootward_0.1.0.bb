SUMMARY = "initramfs-framework: bootward prepares the OSTree root"
DESCRIPTION = "Takes the place of meta-updater's module ostree, for an initramfs that keeps its own PID 1."
SECTION = "base"

require recipes-core/bootward/bootward-common.inc

SRC_URI = "file://bootward"

S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${UNPACKDIR}/bootward ${D}/init.d/98-bootward
    sed -i -e 's,/usr/lib/,${nonarch_libdir}/,' ${D}/init.d/98-bootward
}

FILES:${PN} += "/init.d/98-bootward"

RDEPENDS:${PN} += "\
    bootward-init-guardian \
    initramfs-framework-base \
"
RCONFLICTS:${PN} += "initramfs-module-ostree"
