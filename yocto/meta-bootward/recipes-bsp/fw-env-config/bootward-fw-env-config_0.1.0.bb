SUMMARY = "Where the U-Boot environment is"
DESCRIPTION = "fw_env.config for bootward, fw_printenv and fw_setenv; for boards whose U-Boot recipe brings none."
SECTION = "bootloaders"

require recipes-core/bootward/bootward-common.inc

SRC_URI = "file://fw_env.config"

S = "${UNPACKDIR}"

PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

# The board's own file comes by a bbappend, in a directory that FILESEXTRAPATHS puts first.
do_install() {
    install -D -m 0644 ${UNPACKDIR}/fw_env.config ${D}${sysconfdir}/fw_env.config
}

RPROVIDES:${PN} += "u-boot-default-env"
RCONFLICTS:${PN} += "u-boot-env"
