# With "bootward" in DISTRO_FEATURES only: the layer alone changes no recipe.
require ${@bb.utils.contains('DISTRO_FEATURES', 'bootward', 'ostree-bootward.inc', '', d)}
