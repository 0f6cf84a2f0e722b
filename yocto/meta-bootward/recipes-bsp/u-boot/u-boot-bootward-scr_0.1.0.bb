SUMMARY = "U-Boot script that boots OSTree deployments and rolls back"
DESCRIPTION = "boot.scr from bootward's boot.cmd: reads libostree's uEnv.txt, counts attempts, falls back."
SECTION = "bootloaders"

require recipes-core/bootward/bootward-common.inc

DEPENDS += "u-boot-tools-native"
PROVIDES = "u-boot-default-script"

SRC_URI = "file://boot.cmd"

S = "${UNPACKDIR}"

# kernel-arch knows what mkimage calls the machine.
inherit deploy kernel-arch

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"

# The name that the board's U-Boot looks for.
BOOTWARD_BOOT_SCRIPT ??= "boot.scr"

do_configure[noexec] = "1"

do_compile() {
    mkimage -A ${UBOOT_ARCH} -O linux -T script -C none -n bootward -d ${UNPACKDIR}/boot.cmd ${B}/boot.scr
}

do_install() {
    install -D -m 0644 ${B}/boot.scr ${D}/boot/${BOOTWARD_BOOT_SCRIPT}
}

do_deploy() {
    install -D -m 0644 ${B}/boot.scr ${DEPLOYDIR}/${BOOTWARD_BOOT_SCRIPT}
}
addtask deploy after do_compile before do_build

FILES:${PN} += "/boot"
