SUMMARY = "Guards the boot of OSTree devices: PID 1 of the initramfs"
SUMMARY:${PN}-guardian = "Replaces ostree-prepare-root in an initramfs with a PID 1 of its own"
DESCRIPTION = "Chooses the deployment, prepares the root as libostree does and hands over to the real init."
SECTION = "base"

require bootward.inc

# verify: the commit is checked before it boots, where the configuration says so. A build without it refuses a
# configuration that asks for it.
PACKAGECONFIG ??= "verify"
PACKAGECONFIG[recovery] = "--features recovery,,"
PACKAGECONFIG[tls] = "--features tls,,"
PACKAGECONFIG[verify] = "--features verify,,"

# One static file where the C library is musl. oe-core's rust targets for glibc do not take crt-static; there it is
# linked to the C library, and the initramfs gets that too.
RUSTFLAGS:append:libc-musl = " -Ctarget-feature=+crt-static"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/bootward ${D}/init
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/bootward ${D}${nonarch_libdir}/bootward/guardian

    # What the guardian mounts on, and the console that the kernel gives it before there is a devtmpfs.
    install -d ${D}/dev ${D}/proc ${D}/run ${D}/sys ${D}/sysroot ${D}/tmp
    mknod -m 622 ${D}/dev/console c 5 1
}

PACKAGE_BEFORE_PN = "${PN}-guardian"

FILES:${PN}-guardian += "${nonarch_libdir}/bootward/guardian"
FILES:${PN} += "\
    /dev \
    /init \
    /proc \
    /run \
    /sys \
    /sysroot \
    /tmp \
"

RDEPENDS:${PN} += "bootward-conf"
