//! Block devices: naming a root, recognising filesystems and partitions, waiting for a device.
