# boot.cmd: boots an OSTree device, counts the boots of an update on trial, and rolls back. See README.md.
#
#   mkimage -A arm64 -O linux -T script -C none -n bootward -d boot.cmd boot.scr
#
# Names without setenv are shell variables: they are gone after the boot and never reach the saved environment.

# ---- the board: what there is to adapt -----------------------------------------------------------------------

# Where /boot/loader is: the sysroot, or a boot partition of its own (libostree's link boot/boot makes the paths fit).
bootward_boot="${devtype} ${devnum}:2"

# The state: "env" is the U-Boot environment itself, "file" a file on a FAT partition (one sector, with a CRC).
bootward_store=env
bootward_state="${devtype} ${devnum}:${distro_bootpart}"
bootward_file=bootward.env

# Who counts, with "env": "uboot" (CONFIG_BOOTCOUNT_LIMIT), "script", or "auto": U-Boot where it has set bootcount and has
# the command of that name, else the script. With "file" it is the script.
bootward_counter=auto

# bootlimit where none is stored: boots that a trial may take. At most 98.
bootward_limit=3

# No state can be read, it was lost or never there. "trial": the first entry must prove itself again and be confirmed.
# "trust": it counts as confirmed; take this only where nothing in the system confirms.
bootward_lost=trial

# How a kernel is started (booti, bootz, bootm; "fit": bootm of an image that brings its ramdisk and device tree), and
# the device tree where the entry names none: that of the firmware, or U-Boot's own.
bootward_start=booti
bootward_fdt=${fdtcontroladdr}

# When no entry loads: a kernel of its own with bootward as its initramfs, here on the partition of the state. Empty: none.
bootward_kernel=
bootward_initrd=
bootward_args=

# Memory for small files, which is free until the kernel is loaded, and for a device tree.
bootward_memory=${kernel_addr_r}
bootward_fdt_memory=${fdt_addr_r}

# ---- 1. the state --------------------------------------------------------------------------------------------

# Only these are read from the state, and, in a file, written to it.
bw_names="bootcount bootlimit rollback upgrade_available bootward_recovery"

if test "${bootward_store}" = file; then
  bootward_counter=script
  # A count that U-Boot keeps elsewhere has no say then, and must not come to its limit.
  if test "${bootcount}" -gt 0; then bootcount reset; fi
  # What the environment has of them is older than the file, or of no meaning.
  for bw_name in ${bw_names}; do setenv ${bw_name}; done
  if load ${bootward_state} ${bootward_memory} ${bootward_file} 200; then
    env import -c ${bootward_memory} 200 ${bw_names} || echo "boot.scr: the state has a wrong CRC"
  fi
elif test "${bootward_counter}" = auto; then
  # U-Boot has counted before this script began. Without counting of its own it leaves bootcount as it was stored.
  bootward_counter=script
  if test "${bootcount}" -gt 0; then
    if bootcount print; then bootward_counter=uboot; fi
  fi
fi

bw_save=no
if test -z "${upgrade_available}${rollback}"; then
  echo "boot.scr: there is no state, a new one is made (${bootward_lost})"
  setenv rollback 0
  if test "${bootward_lost}" = trial; then setenv upgrade_available 1; else setenv upgrade_available 0; fi
  if test "${bootward_counter}" != uboot; then setenv bootcount 0; fi
  bw_save=yes
fi

# What is not a number is replaced. test reads decimal, as everyone does who reads these variables.
if test "${bootlimit}" != 0; then
  test "${bootlimit}" -gt 0 || setenv bootlimit ${bootward_limit}
fi
test "${bootcount}" -gt 0 || setenv bootcount 0

# U-Boot looks for altbootcmd when its own count is over the limit. This script looks at the count itself.
if test "${bootward_counter}" = uboot; then
  if test "${altbootcmd}" != "run bootcmd"; then setenv altbootcmd "run bootcmd"; bw_save=yes; fi
fi

# ---- 2. the count, and which entry comes first ---------------------------------------------------------------

bw_order="1 2"
bw_trial=no
if test "${rollback}" = 1; then
  echo "boot.scr: rollback=1, the second entry comes first"
  bw_order="2 1"
elif test "${upgrade_available}" = 1; then
  bw_trial=yes
fi

if test ${bw_trial} = yes; then
  if test "${bootward_counter}" = script; then
    # setexpr counts in hex: where a digit above 9 comes up, six more make it the next decimal number.
    setexpr bootcount ${bootcount} + 1
    setexpr bw_digit ${bootcount} % 10
    if itest ${bw_digit} -gt 9; then setexpr bootcount ${bootcount} + 6; fi
    setenv bw_digit
    bw_save=yes
  fi
  echo "boot.scr: trial, boot ${bootcount} of ${bootlimit}, counted by ${bootward_counter}"
  if test "${bootlimit}" != 0; then
    if test ${bootcount} -gt ${bootlimit}; then
      echo "boot.scr: the trial has failed, rolling back"
      setenv rollback 1
      setenv upgrade_available 0
      bw_order="2 1"
      bw_trial=no
      bw_save=yes
    fi
  fi
fi

# The next trial begins at nothing, even where the updater forgets to say so.
if test ${bw_trial} = no; then
  if test "${bootward_counter}" = uboot; then
    bootcount reset
  else
    test "${bootcount}" = 0 || bw_save=yes
  fi
  setenv bootcount 0
fi

# Saved before anything of uEnv.txt is in the environment: saveenv saves all of it.
if test "${bw_save}" = yes; then
  bw_saved=no
  if test "${bootward_store}" = file; then
    if env export -c -s 200 ${bootward_memory} ${bw_names}; then
      if fatwrite ${bootward_state} ${bootward_memory} ${bootward_file} 200; then bw_saved=yes; fi
    fi
  else
    if saveenv; then bw_saved=yes; fi
  fi
  if test "${bw_saved}" = no; then echo "boot.scr: THE STATE CANNOT BE WRITTEN, this boot is not counted"; fi
fi

# ---- 3. the entries ------------------------------------------------------------------------------------------

# Only these are read from uEnv.txt, which the updater writes. All of them at once are more words than a command takes.
bw_first="kernel_image ramdisk_image fdt_file fdtdir bootdir bootargs"
bw_second="kernel_image2 ramdisk_image2 fdt_file2 fdtdir2 bootdir2 bootargs2"

for bw_entry in ${bw_order}; do
  for bw_name in ${bw_first} ${bw_second}; do setenv ${bw_name}; done
  # One of the folders is what the link leads to, if the link itself is lost.
  bw_size=0
  for bw_loader in loader loader.0 loader.1; do
    if test ${bw_size} = 0; then
      if load ${bootward_boot} ${bootward_memory} /boot/${bw_loader}/uEnv.txt; then bw_size=${filesize}; fi
    fi
  done
  if test ${bw_size} != 0; then
    if test ${bw_entry} = 1; then
      env import -t ${bootward_memory} ${bw_size} ${bw_first}
    else
      env import -t ${bootward_memory} ${bw_size} ${bw_second}
    fi
  fi
  if test ${bw_entry} = 2; then
    setenv kernel_image "${kernel_image2}"
    setenv ramdisk_image "${ramdisk_image2}"
    setenv fdt_file "${fdt_file2}"
    setenv fdtdir "${fdtdir2}"
    setenv bootdir "${bootdir2}"
    setenv bootargs "${bootargs2}"
  fi

  bw_good=no
  bw_ramdisk=-
  bw_fdt=${bootward_fdt}
  if test -n "${kernel_image}"; then
    if load ${bootward_boot} ${kernel_addr_r} ${kernel_image}; then bw_good=yes; fi
  fi
  # The device tree first: the ramdisk's size must be the last that load leaves behind.
  if test -n "${fdt_file}"; then
    bw_fdt=${bootward_fdt_memory}
    load ${bootward_boot} ${bootward_fdt_memory} ${fdt_file} || bw_good=no
  elif test -n "${fdtdir}"; then
    if test -n "${fdtfile}"; then
      bw_fdt=${bootward_fdt_memory}
      load ${bootward_boot} ${bootward_fdt_memory} ${fdtdir}/${fdtfile} || bw_good=no
    fi
  fi
  if test -n "${ramdisk_image}"; then
    if load ${bootward_boot} ${ramdisk_addr_r} ${ramdisk_image}; then
      bw_ramdisk=${ramdisk_addr_r}:${filesize}
    else
      bw_good=no
    fi
  fi

  if test ${bw_good} = yes; then
    echo "boot.scr: entry ${bw_entry}: ${kernel_image}"
    if test ${bootward_start} = fit; then
      bootm ${kernel_addr_r}
    else
      ${bootward_start} ${kernel_addr_r} ${bw_ramdisk} ${bw_fdt}
    fi
  fi
  echo "boot.scr: entry ${bw_entry} does not boot"
done

# ---- 4. when nothing boots -----------------------------------------------------------------------------------

if test -n "${bootward_kernel}"; then
  echo "boot.scr: no entry boots, starting the recovery"
  if load ${bootward_state} ${kernel_addr_r} ${bootward_kernel}; then
    if load ${bootward_state} ${ramdisk_addr_r} ${bootward_initrd}; then
      setenv bootargs "${bootward_args}"
      ${bootward_start} ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${bootward_fdt}
    fi
  fi
fi
echo "boot.scr: nothing boots, restarting in 10 s"
sleep 10
reset
