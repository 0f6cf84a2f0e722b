# Modules of Linux that Debian does not build for arm64; tests/vm/setup puts Linux' sources beside this file.
ccflags-y := -DCONFIG_MTD_CFI_INTELEXT=1 -DCONFIG_MTD_PHYSMAP_OF=1 -DCONFIG_MTD_CFI=1
obj-m := cfi_util.o gen_probe.o cfi_probe.o cfi_cmdset_0001.o physmap.o nand.o nandsim.o
physmap-objs := physmap-core.o
nand-objs := nand_base.o nand_legacy.o nand_bbt.o nand_timings.o nand_ids.o nand_onfi.o nand_jedec.o nand_amd.o nand_esmt.o \
	nand_hynix.o nand_macronix.o nand_micron.o nand_samsung.o nand_toshiba.o
