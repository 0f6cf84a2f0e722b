//! The U-Boot environment: image, redundant pair, `fw_env.config`, and the store on a device.
