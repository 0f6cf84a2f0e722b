# Signs the OSTree commit of an image with ed25519, so that bootward can tell before it boots whose it is.
#
#   IMAGE_CLASSES += "bootward_ostree_sign"
#   BOOTWARD_SIGN_KEY = "/path/to/secret.ed25519"
#   BOOTWARD_PUBLIC_KEYS = "/path/to/keys.ed25519"
#
# The secret key is a file with one line: seed and public key, 64 bytes, in base64, as "ostree sign" takes it. The public
# keys are 32 bytes each in base64, one a line; bootward-conf installs the same file. README.md makes both.
#
# It works on what IMAGE_CMD:ostreecommit of meta-updater leaves: the repository OSTREE_REPO and the commit's checksum in
# ${WORKDIR}/ostree_manifest. A commit that is signed already, since nothing has changed, is left as it is.

BOOTWARD_SIGN_KEY ??= ""
BOOTWARD_PUBLIC_KEYS ??= ""

# nooelint: oelint.vars.mispell.unknown a task of meta-updater
do_image_ostreecommit[postfuncs] += "bootward_sign_commit"
# nooelint: oelint.vars.mispell.unknown a task of meta-updater
do_image_ostreecommit[vardeps] += "BOOTWARD_SIGN_KEY BOOTWARD_PUBLIC_KEYS"
# nooelint: oelint.vars.mispell.unknown a task of meta-updater
do_image_ostreecommit[file-checksums] += "${@' '.join(f + ':True' for f in (d.getVar('BOOTWARD_SIGN_KEY'), d.getVar('BOOTWARD_PUBLIC_KEYS')) if f)}"

bootward_sign_commit[doc] = "Signs the commit that was just made and verifies it with the keys of the device"
bootward_sign_commit() {
    if [ -z "${BOOTWARD_SIGN_KEY}" ] || [ -z "${BOOTWARD_PUBLIC_KEYS}" ]; then
        bbfatal "bootward_ostree_sign needs BOOTWARD_SIGN_KEY and BOOTWARD_PUBLIC_KEYS"
    fi
    commit=$(cat ${WORKDIR}/ostree_manifest)
    if ! bootward_commit_is_signed "$commit"; then
        ostree --repo=${OSTREE_REPO} sign --sign-type=ed25519 --keys-file=${BOOTWARD_SIGN_KEY} "$commit" ||
            bbfatal "commit $commit cannot be signed"
    fi
    # With the keys that the device will have: a pair that does not belong together is found here and not there.
    bootward_commit_is_signed "$commit" ||
        bbfatal "commit $commit is not signed by a key of ${BOOTWARD_PUBLIC_KEYS}: do the two files belong together?"
}

bootward_commit_is_signed[doc] = "Whether a key of BOOTWARD_PUBLIC_KEYS has signed a commit"
bootward_commit_is_signed() {
    ostree --repo=${OSTREE_REPO} sign --verify --sign-type=ed25519 --keys-file=${BOOTWARD_PUBLIC_KEYS} "$1" >/dev/null 2>&1
}
