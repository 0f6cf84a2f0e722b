SUMMARY = "Guards the boot of OSTree devices: the command in the OS"
SUMMARY:${PN}-services = "Runs the health checks at boot and acts on the result"
DESCRIPTION = "Shows the boot state of an OSTree device, runs its health checks, confirms or rejects a boot."
SECTION = "base"

require bootward.inc

SRC_URI += "\
    file://bootward-check.service \
    file://bootward-confirm.service \
    file://bootward-reject.service \
    file://bootward.init \
"

inherit systemd update-rc.d

SYSTEMD_PACKAGES = "${PN}-services"
SYSTEMD_SERVICE:${PN}-services = "bootward-check.service bootward-confirm.service"

INITSCRIPT_PACKAGES = "${PN}-services"
INITSCRIPT_NAME:${PN}-services = "bootward"
# After everything that a check may look at.
INITSCRIPT_PARAMS:${PN}-services = "start 99 2 3 4 5 ."

PACKAGECONFIG ??= "health publish recovery tls trial verify"
PACKAGECONFIG[health] = "--features health,,"
PACKAGECONFIG[publish] = "--features publish,,"
PACKAGECONFIG[recovery] = "--features recovery,,"
PACKAGECONFIG[tls] = "--features tls,,"
PACKAGECONFIG[trial] = "--features trial,,"
PACKAGECONFIG[verify] = "--features verify,,"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/bootward ${D}${bindir}/bootward

    # Where health checks go: those of the system, and those of the device.
    for base in ${D}${nonarch_libdir}/bootward ${D}${sysconfdir}/bootward; do
        install -d $base/check/required.d $base/check/wanted.d $base/green.d $base/red.d
    done

    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        for unit in check confirm reject; do
            install -D -m 0644 ${UNPACKDIR}/bootward-$unit.service ${D}${systemd_system_unitdir}/bootward-$unit.service
        done
        sed -i -e 's,/usr/bin/,${bindir}/,' ${D}${systemd_system_unitdir}/*.service
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -D -m 0755 ${UNPACKDIR}/bootward.init ${D}${sysconfdir}/init.d/bootward
        sed -i -e 's,/usr/bin/,${bindir}/,' ${D}${sysconfdir}/init.d/bootward
    fi
}

PACKAGE_BEFORE_PN = "${PN}-services"

FILES:${PN}-services += "\
    ${sysconfdir}/init.d/bootward \
    ${systemd_system_unitdir}/*.service \
"
FILES:${PN} += "\
    ${nonarch_libdir}/bootward \
    ${sysconfdir}/bootward \
"

RDEPENDS:${PN} += "bootward-conf"
RDEPENDS:${PN}-services += "${PN}"
