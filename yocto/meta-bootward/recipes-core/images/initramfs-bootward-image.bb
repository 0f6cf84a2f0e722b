SUMMARY = "Initramfs with bootward as PID 1"
DESCRIPTION = "bootward as /init, its configuration and kernel modules; no shell, no udev, no libostree."
SECTION = "base"
LICENSE = "MIT"
CVE_PRODUCT = "bootward"

# Modules that the root device needs and the kernel does not have built in, as packages. bootward.toml names them too:
# it loads them.
BOOTWARD_INITRAMFS_MODULES ??= ""
# The package with /etc/fw_env.config; empty for a board without U-Boot.
BOOTWARD_FW_ENV ??= "bootward-fw-env-config"

PACKAGE_INSTALL = "\
    bootward-init \
    bootward-conf \
    ${BOOTWARD_FW_ENV} \
    ${BOOTWARD_INITRAMFS_MODULES} \
"

inherit core-image nopackages

# Where the state is a file, it is on a partition that the OS has at /boot/firmware and the guardian at /firmware.
ROOTFS_POSTPROCESS_COMMAND += "bootward_firmware_paths"

bootward_firmware_paths[doc] = "Names the files of fw_env.config as the guardian has them"
bootward_firmware_paths() {
    if [ -f ${IMAGE_ROOTFS}${sysconfdir}/fw_env.config ]; then
        sed -i -e 's,^\([[:space:]]*\)/boot/firmware/,\1/firmware/,' ${IMAGE_ROOTFS}${sysconfdir}/fw_env.config
    fi
}

# Nothing that belongs to the root file system.
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_NAME_SUFFIX ?= ""
IMAGE_FSTYPES = "${INITRAMFS_FSTYPES}"
IMAGE_CLASSES:remove = "image_repo_manifest qemuboot"
IMAGE_ROOTFS_SIZE = "8192"
IMAGE_ROOTFS_EXTRA_SPACE = "0"
IMAGE_OVERHEAD_FACTOR = "1.0"
EXTRA_IMAGEDEPENDS = ""
BAD_RECOMMENDATIONS += "busybox-syslog"
